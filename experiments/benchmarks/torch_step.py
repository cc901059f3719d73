"""The authors' training step in PyTorch, written anew, to time ours against: needs `torch`.

Channels last, which is PyTorch's faster layout on a CPU. ASAM scales the tensors whose name holds
"weight" by |w| + eta; SAM none. Only the ResNets of two convolutions a block are here: what is
compared is the step, not the network.
"""

import functools
import importlib.metadata
import time
from collections.abc import Callable
from typing import Any

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


def steps(model: str, batch_size: int) -> dict[str, Callable[[], float]]:
    """By name, for each of METHODS and each peer, a function that steps and returns its seconds."""
    torch = _torch()
    if model not in DEPTHS:
        raise ConfigError(
            f"model {model!r} has no PyTorch counterpart; with --torch the known ones are: "
            f"{', '.join(DEPTHS)}."
        )
    rng = np.random.default_rng(0)
    images = torch.tensor(rng.normal(size=(batch_size, 3, 32, 32)), dtype=torch.float32)
    images = images.to(memory_format=torch.channels_last)
    labels = torch.tensor(rng.integers(10, size=batch_size))
    made = {
        name_of(form): _step(torch, DEPTHS[model], images, labels, rho, adaptive)
        for form, (rho, adaptive) in METHODS.items()
    }

    new_network = functools.partial(_network, torch, DEPTHS[model])
    return made | torch_peers.steps(torch, new_network, images, labels)


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


def _step(torch, blocks: int, images, labels, rho: float, adaptive: bool) -> Callable[[], float]:
    network = _network(torch, blocks)
    optimizer = torch.optim.SGD(
        network.parameters(), LEARNING_RATE, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY
    )
    loss = torch.nn.functional.cross_entropy

    def run() -> float:
        started = time.perf_counter()
        optimizer.zero_grad()
        loss(network(images), labels).backward()
        if rho:
            moved = _ascend(torch, network, rho, adaptive)
            optimizer.zero_grad()
            loss(network(images), labels).backward()
            with torch.no_grad():
                for parameter, eps in moved:
                    parameter.sub_(eps)
        optimizer.step()
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
