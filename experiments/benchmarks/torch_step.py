"""The authors' training step in PyTorch, written anew, to time ours against: needs `torch`.

It runs on the kind of device that JAX computes on, and every step waits for it. Channels last,
PyTorch's faster layout. bfloat16 is its autocast. ASAM scales the tensors whose name holds
"weight" by |w| + eta; SAM none. Only the ResNets of two convolutions a block are here: what is
compared is the step, not the network.
"""

import functools
import importlib.metadata
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from experiments.benchmarks import torch_peers
from experiments.benchmarks.compared_steps import (
    LEARNING_RATE,
    MOMENTUM,
    RHO_ASAM,
    RHO_SAM,
    WEIGHT_DECAY,
)
from experiments.config.errors import ConfigError
from experiments.config.run_config import precision_of_jax

ETA = 0.01
DEPTHS = {"resnet8": 1, "resnet20": 3, "resnet32": 5, "resnet56": 9}
# Our form -> (radius, whether the perturbation is normalised).
METHODS = {
    "SGD": (0.0, False),
    "SAM": (RHO_SAM, False),
    "ASAM, element-wise": (RHO_ASAM, True),
}


def name_of(form: str) -> str:
    """What PyTorch's counterpart of one of our forms is called."""
    return f"PyTorch, {form}"


class Machine:
    """PyTorch on the kind of device that JAX computes on, with the arithmetic of a run.

    Raises:
      ConfigError: PyTorch is not installed, or has no such device.
    """

    def __init__(self, dtype: str = "float32", precision: str = "default"):
        self.torch = torch = _torch()
        backend = jax.default_backend()
        if backend not in ("cpu", "gpu"):
            raise ConfigError(f"--torch has no counterpart of JAX's {backend}; leave it out.")
        if backend == "gpu" and not torch.cuda.is_available():
            raise ConfigError(
                f"--torch: JAX computes on a GPU and this PyTorch ({torch.__version__}) sees none; "
                "install one built for it, or compare on the CPU with JAX_PLATFORMS=cpu."
            )
        self.device = "cuda" if backend == "gpu" else "cpu"
        self.dtype = dtype
        self.tf32 = backend == "gpu" and dtype == "float32" and precision != "highest"
        if backend == "gpu":
            torch.backends.cudnn.allow_tf32 = self.tf32
            torch.backends.cuda.matmul.allow_tf32 = self.tf32

    def autocast(self):
        """What a forward pass runs under."""
        lower = self.dtype == "bfloat16"
        return self.torch.autocast(self.device, dtype=self.torch.bfloat16, enabled=lower)

    def synchronize(self) -> None:
        """Waits until the device has done all that it was given."""
        if self.device == "cuda":
            self.torch.cuda.synchronize()

    def batch(self, size: int) -> tuple[Any, Any]:
        """Random images, channels last, and labels."""
        rng = np.random.default_rng(0)
        images = self.torch.tensor(rng.normal(size=(size, 3, 32, 32)), dtype=self.torch.float32)
        images = images.to(self.device, memory_format=self.torch.channels_last)
        return images, self.torch.tensor(rng.integers(10, size=size)).to(self.device)

    def network(self, model: str):
        """The network of that name, fresh.

        Raises:
          ConfigError: there is none here.
        """
        if model not in DEPTHS:
            raise ConfigError(
                f"model {model!r} has no PyTorch counterpart; with --torch the known ones are: "
                f"{', '.join(DEPTHS)}."
            )
        return _network(self.torch, DEPTHS[model]).to(self.device)


def steps(model: str, batch_size: int, dtype: str = "float32") -> dict[str, Callable[[], float]]:
    """By name, for each of METHODS and each peer, a function that steps and returns its seconds."""
    machine = Machine(dtype, precision_of_jax())
    new_network = functools.partial(machine.network, model)
    images, labels = machine.batch(batch_size)
    made = {
        name_of(form): step(machine, new_network(), images, labels, rho, adaptive)
        for form, (rho, adaptive) in METHODS.items()
    }
    return made | torch_peers.steps(machine, new_network, images, labels)


def versions() -> dict[str, str]:
    """PyTorch's version, the threads that it computes with, and the peers' version."""
    torch = _torch()
    found = {"torch": torch.__version__, "torch_threads": str(torch.get_num_threads())}
    if torch_peers.library() is not None:
        found["pytorch_optimizer"] = importlib.metadata.version("pytorch_optimizer")
    return found


def _torch() -> Any:
    try:
        import torch  # pyright: ignore[reportMissingImports] (optional)
    except ImportError as error:
        raise ConfigError(
            "--torch needs PyTorch, which is not installed; run pip install torch, or leave "
            "--torch out."
        ) from error
    return torch


def step(
    machine: Machine, network, images, labels, rho: float, adaptive: bool, *, compiled: bool = False
) -> Callable[[], float]:
    """A function that takes one step of the network, waits for it and returns its seconds.

    `compiled`: forward and backward pass are `torch.compile`'s; the rest stays eager.
    """
    torch = machine.torch
    optimizer = torch.optim.SGD(
        network.parameters(), LEARNING_RATE, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY
    )
    forward = torch.compile(network) if compiled else network

    def backward() -> None:
        optimizer.zero_grad()
        with machine.autocast():
            loss = torch.nn.functional.cross_entropy(forward(images), labels)
        loss.backward()

    def run() -> float:
        started = time.perf_counter()
        backward()
        if rho:
            moved = _ascend(torch, network, rho, adaptive)
            backward()
            with torch.no_grad():
                for parameter, eps in moved:
                    parameter.sub_(eps)
        optimizer.step()
        machine.synchronize()
        return time.perf_counter() - started

    return run


def _ascend(torch, network, rho: float, adaptive: bool) -> list[tuple[Any, Any]]:
    """Moves the parameters by eps = rho T^2 g / ||T g|| and returns what each was moved by."""
    with torch.no_grad():
        scaled = []
        for name, parameter in network.named_parameters():
            scale = parameter.abs() + ETA if adaptive and "weight" in name else 1.0
            scaled.append((parameter, scale, parameter.grad * scale))
        norm = torch.sqrt(sum((tg**2).sum() for _, _, tg in scaled)) + 1e-16
        moved = [(parameter, rho * scale * tg / norm) for parameter, scale, tg in scaled]
        for parameter, eps in moved:
            parameter.add_(eps)
    return moved


def _network(torch, blocks: int):
    """The ResNet of experiments.models.resnet, layer for layer, channels last."""
    nn = torch.nn

    def conv(inputs: int, outputs: int, size: int, stride: int = 1):
        return nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False)

    class Block(nn.Module):
        def __init__(self, inputs: int, outputs: int, stride: int):
            super().__init__()
            self.conv1, self.norm1 = conv(inputs, outputs, 3, stride), nn.BatchNorm2d(outputs)
            self.conv2, self.norm2 = conv(outputs, outputs, 3), nn.BatchNorm2d(outputs)
            self.shortcut = nn.Identity()
            if inputs != outputs:
                self.shortcut = nn.Sequential(
                    conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs)
                )

        def forward(self, x):
            y = torch.relu(self.norm1(self.conv1(x)))
            return torch.relu(self.norm2(self.conv2(y)) + self.shortcut(x))

    stem = conv(3, 16, 3, 2 if blocks == 1 else 1)
    layers, width = [stem, nn.BatchNorm2d(16), nn.ReLU()], 16
    for stage in range(3):
        for index in range(blocks):
            outputs = 16 * 2**stage
            layers.append(Block(width, outputs, 2 if stage and not index else 1))
            width = outputs
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)]
    return nn.Sequential(*layers, *head).to(memory_format=torch.channels_last)
