"""The convolutions of a network: forward, and the gradients of its input and of its kernel, alone.

Each is a function of arrays that lie as XLA's CPU backend wants them, so that nothing is timed but
the convolution: the gradient of a kernel takes images as (channels, height, width, batch), and as
its window what comes back from the loss, as (height, width, batch, channels).
"""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks import compared_steps
from experiments.config.errors import ConfigError

LAYOUT = ("NHWC", "HWIO", "NHWC")
PARTS = ("forward", "gradient of the input", "gradient of the kernel")


class Convolution(NamedTuple):
    """Of square images and windows, padded alike on all sides, in one group."""

    batch: int
    side: int
    inputs: int
    outputs: int
    window: int
    stride: int
    padding: int

    @property
    def side_out(self) -> int:
        return (self.side + 2 * self.padding - self.window) // self.stride + 1

    def __str__(self) -> str:
        step = f", stride {self.stride}" if self.stride > 1 else ""
        return (
            f"{self.window}x{self.window}, {self.inputs} to {self.outputs} channels, "
            f"{self.side}x{self.side}{step}"
        )


def of_network(model: str, batch_size: int) -> Counter[Convolution]:
    """Those that a forward pass makes, and how many of each.

    Raises:
      ConfigError: one of them is grouped.
    """

    def loss():  # with the network made inside, nothing of it is computed
        given = compared_steps.problem(model, batch_size, "float32")
        return given.loss(given.params, given.rest)[0]

    return Counter(_read(equation) for equation in _equations(jax.make_jaxpr(loss)().jaxpr))


def _equations(jaxpr: Any) -> Iterator[Any]:
    for equation in jaxpr.eqns:
        if equation.primitive.name == "conv_general_dilated":
            yield equation
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from _equations(inner)


def _read(equation: Any) -> Convolution:
    (batch, side, _, inputs), (window, _, _, outputs) = (v.aval.shape for v in equation.invars)
    if equation.params["feature_group_count"] != 1:
        raise ConfigError("benchmark convolutions: the model has grouped ones; choose another.")
    strides, padding = equation.params["window_strides"], equation.params["padding"]
    return Convolution(batch, side, inputs, outputs, window, strides[0], padding[0][0])


def arrays(one: Convolution) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images, a kernel and what comes back from the loss: NHWC, HWIO, NHWC."""
    rng = np.random.default_rng(0)
    shapes = (
        (one.batch, one.side, one.side, one.inputs),
        (one.window, one.window, one.inputs, one.outputs),
        (one.batch, one.side_out, one.side_out, one.outputs),
    )
    images, kernel, back = (rng.normal(size=shape).astype(np.float32) for shape in shapes)
    return images, kernel, back


def parts(one: Convolution) -> dict[str, tuple[Callable[..., jax.Array], tuple[jax.Array, ...]]]:
    """By name, a function and its arguments."""
    images, kernel, back = map(jnp.asarray, arrays(one))
    turned = jnp.flip(kernel, (0, 1)).swapaxes(2, 3)
    # The padding of the two gradients: what is left of the window, and what is never read.
    near = one.window - 1 - one.padding
    far = one.side - 1 - (one.side_out - 1) * one.stride + one.padding
    rest = one.window - 1 + one.stride * (one.side_out - 1) - one.side - one.padding + 1

    def convolve(lhs, rhs, stride, padding, **dilation):
        return jax.lax.conv_general_dilated(
            lhs, rhs, (stride,) * 2, (padding,) * 2, dimension_numbers=LAYOUT, **dilation
        )

    def forward(images, kernel):
        return convolve(images, kernel, one.stride, (one.padding,) * 2)

    def of_input(back, turned):
        return convolve(back, turned, 1, (near, far), lhs_dilation=(one.stride,) * 2)

    def of_kernel(images_CxHxWxB, back_HxWxBxO):
        padding = (one.padding, rest)
        return convolve(images_CxHxWxB, back_HxWxBxO, 1, padding, rhs_dilation=(one.stride,) * 2)

    lying = (images.transpose(3, 1, 2, 0), back.transpose(1, 2, 0, 3))
    functions = (forward, of_input, of_kernel)
    arguments = ((images, kernel), (back, turned), lying)
    return dict(zip(PARTS, zip(functions, arguments, strict=True), strict=True))
