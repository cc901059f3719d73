"""PyTorch's convolutions, channels last, to time XLA's against: needs `torch`."""

import time
from collections.abc import Callable
from typing import Any

from experiments.benchmarks.convolutions import PARTS, Convolution, arrays
from experiments.benchmarks.torch_step import Machine


def parts(machine: Machine, one: Convolution) -> dict[str, Callable[[], Any]]:
    """By name, a function that computes that part of one convolution."""
    torch = machine.torch

    def last(array, *axes: int):
        tensor = torch.tensor(array).permute(*axes)
        return tensor.to(memory_format=torch.channels_last)

    images, kernel, back = arrays(one)
    images, back = last(images, 0, 3, 1, 2), last(back, 0, 3, 1, 2)
    kernel = last(kernel, 3, 2, 0, 1)
    stride, padding = (one.stride,) * 2, (one.padding,) * 2

    def forward():
        return torch.nn.functional.conv2d(images, kernel, stride=stride, padding=padding)

    def gradient(of_input: bool):
        wanted = [of_input, not of_input, False]
        found = torch.ops.aten.convolution_backward(
            back, images, kernel, None, stride, padding, (1, 1), False, (0, 0), 1, wanted
        )
        return found[0 if of_input else 1]

    functions = (forward, lambda: gradient(True), lambda: gradient(False))
    return dict(zip(PARTS, functions, strict=True))


def timed(function: Callable[[], Any]) -> Callable[[], float]:
    """A function that runs it and returns its seconds; a CPU's results are there on return."""

    def run() -> float:
        started = time.perf_counter()
        function()
        return time.perf_counter() - started

    return run
