"""PyTorch's steps to time ours against: the authors', written anew, and `pytorch_optimizer`'s.

They run on the kind of device that JAX computes on, and every step waits for it. Channels last,
PyTorch's faster layout. bfloat16 is its autocast. ASAM scales the tensors whose name holds
"weight" by |w| + eta; SAM none. Only the ResNets of two convolutions a block are here: what is
compared is the step, not the network. Needs `torch`; `pytorch_optimizer` where it is installed.
"""

import functools
import importlib.metadata
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from experiments.config.errors import ConfigError
from experiments.config.run import one_of
from experiments.training.resolve import precision_of_jax

DEPTHS = {"resnet8": 1, "resnet20": 3, "resnet32": 5, "resnet56": 9}
# Our name -> (radius, whether the perturbation is normalised).
METHODS = {"SGD": (0.0, False), "SAM": (0.05, False), "ASAM, element-wise": (0.5, True)}
_BASE = dict(lr=0.1, momentum=0.9, weight_decay=5e-4)


def name_of(ours: str) -> str:
    """What PyTorch's counterpart of one of our steps is called."""
    return f"PyTorch, {ours}"


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

    def loss(self, network, images, labels):
        """The mean cross-entropy, computed in the run's dtype."""
        lower = self.dtype == "bfloat16"
        with self.torch.autocast(self.device, dtype=self.torch.bfloat16, enabled=lower):
            return self.torch.nn.functional.cross_entropy(network(images), labels)

    def timed(self, step: Callable[[], Any], makes: int = 1) -> Callable[[], float]:
        """So many steps, waited for; their mean of seconds is the result."""

        def run() -> float:
            started = time.perf_counter()
            for _ in range(makes):
                step()
            if self.device == "cuda":
                self.torch.cuda.synchronize()
            return (time.perf_counter() - started) / makes

        return run

    def batch(self, size: int) -> tuple[Any, Any]:
        """Random images, channels last, and labels."""
        rng = np.random.default_rng(0)
        images = self.torch.tensor(rng.normal(size=(size, 3, 32, 32)), dtype=self.torch.float32)
        images = images.to(self.device, memory_format=self.torch.channels_last)
        return images, self.torch.tensor(rng.integers(10, size=size)).to(self.device)

    def network(self, model: str):
        """The network of that name, fresh; ConfigError if there is none here."""
        one_of("model with --torch", model, DEPTHS)
        return _network(self.torch, DEPTHS[model]).to(self.device)


def steps(model: str, batch_size: int, dtype: str = "float32") -> dict[str, Callable[[], float]]:
    """By name, for each of METHODS and each peer, a function that steps and returns its seconds."""
    machine = Machine(dtype, precision_of_jax())
    new_network = functools.partial(machine.network, model)
    batch = machine.batch(batch_size)
    made = {
        name_of(ours): step(machine, new_network(), *batch, rho, adaptive)
        for ours, (rho, adaptive) in METHODS.items()
    }
    return made | _peers(machine, new_network, *batch)


def versions() -> dict[str, str]:
    """PyTorch's version, the threads that it computes with, and the peers' version."""
    torch = _torch()
    found = {"torch": torch.__version__, "torch_threads": str(torch.get_num_threads())}
    if _library() is not None:
        found["pytorch_optimizer"] = importlib.metadata.version("pytorch_optimizer")
    return found


def _torch() -> Any:
    try:
        import torch  # pyright: ignore[reportMissingImports] (optional)
    except ImportError as error:
        said = "--torch needs PyTorch, which is not installed; run pip install torch, or leave it"
        raise ConfigError(f"{said} out.") from error
    return torch


def _library() -> Any:
    try:
        import pytorch_optimizer  # pyright: ignore[reportMissingImports] (optional)
    except ImportError:
        return None
    return pytorch_optimizer


def step(
    machine: Machine, network, images, labels, rho: float, adaptive: bool, *, compiled: bool = False
) -> Callable[[], float]:
    """A function that takes one step of the network, waits for it and returns its seconds.

    `compiled`: forward and backward pass are `torch.compile`'s; the rest stays eager.
    """
    torch = machine.torch
    optimizer = torch.optim.SGD(network.parameters(), **_BASE)
    forward = torch.compile(network) if compiled else network

    def backward() -> None:
        optimizer.zero_grad()
        machine.loss(forward, images, labels).backward()

    def run() -> None:
        backward()
        if rho:
            moved = perturb(torch, network, rho, adaptive)
            backward()
            with torch.no_grad():
                for parameter, eps in moved:
                    parameter.sub_(eps)
        optimizer.step()

    return machine.timed(run)


def perturb(torch, network, rho: float, adaptive: bool) -> list[tuple[Any, Any]]:
    """Moves the parameters by eps = rho T^2 g / ||T g|| and returns what each was moved by."""
    with torch.no_grad():
        scaled = []
        for name, parameter in network.named_parameters():
            scale = parameter.abs() + 0.01 if adaptive and "weight" in name else 1.0
            scaled.append((parameter, scale, parameter.grad * scale))
        norm = torch.sqrt(sum((tg**2).sum() for _, _, tg in scaled)) + 1e-16
        moved = [(parameter, rho * scale * tg / norm) for parameter, scale, tg in scaled]
        for parameter, eps in moved:
            parameter.add_(eps)
    return moved


def _peers(machine: Machine, new_network, images, labels) -> dict[str, Callable[[], float]]:
    """The SAM family of `pytorch_optimizer`, called as its documentation does."""
    peers = _library()
    if peers is None:
        return {}
    torch = machine.torch
    sgd, sam = torch.optim.SGD, _BASE | dict(rho=0.05)

    def around(make, closures: int = 1, makes: int = 1) -> Callable[[], float]:
        """`closures`: 1, the first gradient is the caller's; 2, both are step's; 0, it has one."""
        network = new_network()
        optimizer = make(network)

        def closure():
            optimizer.zero_grad()
            value = machine.loss(network, images, labels)
            value.backward()
            return value

        def one() -> None:
            if closures == 1:
                closure()
            optimizer.step(closure) if closures else optimizer.step()

        return machine.timed(one, makes)

    class Radius:
        """GSAM asks a scheduler for its radius."""

        def step(self) -> float:
            return 0.05

    def gsam(network):
        base = sgd(network.parameters(), **_BASE)
        made = peers.GSAM(network.parameters(), base, network, Radius())
        made.set_closure(torch.nn.functional.cross_entropy, images, labels)
        return made

    adaptive = sam | dict(rho=0.5, adaptive=True)
    look = sam | dict(k=4)
    made = {
        "SAM": around(lambda n: peers.SAM(n.parameters(), sgd, **sam)),
        "SAM, adaptive": around(lambda n: peers.SAM(n.parameters(), sgd, **adaptive)),
        "LookSAM": around(lambda n: peers.LookSAM(n.parameters(), sgd, **look), makes=4),
        "GSAM": around(gsam, closures=0),
        "WSAM": around(lambda n: peers.WSAM(n, n.parameters(), sgd, **sam), closures=2),
        "FriendlySAM": around(lambda n: peers.FriendlySAM(n.parameters(), sgd, **sam)),
    }
    return {f"pytorch_optimizer, {name}": one for name, one in made.items()}


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
