"""The networks by name: each file's `MODELS` has their modules and the smallest image each takes.

A module is made by (num_classes, image_shape, rngs=, dtype=), called with images (batch, height,
width, channels), and returns logits (batch, classes). Parameters are float32; `dtype` is that of
the computation.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from experiments.config.errors import ConfigError
from experiments.config.registry import collect
from experiments.config.run import one_of


def names() -> list[str]:
    """All networks."""
    return list(collect(__name__, "MODELS"))


def create(name: str, *, num_classes: int, image_shape: tuple[int, int, int], rngs, dtype) -> Any:
    """A fresh `nnx.Module`, in training mode.

    Args:
      name: one of `names()`.
      num_classes: how many logits.
      image_shape: height, width and channels of an image.
      rngs: the `nnx.Rngs` that draws the initial values.
      dtype: float32 or bfloat16.

    Raises:
      ConfigError: no such name, or the images are too small for the network's downsamplings.
    """
    found = collect(__name__, "MODELS")
    one_of("model", name, found)
    module, smallest = found[name]
    height, width, _ = image_shape
    if min(height, width) < smallest:
        raise ConfigError(
            f"model {name!r} needs images of at least {smallest} pixels a side, and these have "
            f"{height}x{width}; choose a smaller model, such as 'cnn' or 'resnet20'."
        )
    return module(num_classes, image_shape, rngs=rngs, dtype=dtype)


def parameter_count(name: str, num_classes: int = 10) -> int:
    """Numbers that training changes, for CIFAR's 32x32 images; nothing is computed for it."""
    how: dict[str, Any] = dict(num_classes=num_classes, image_shape=(32, 32, 3), dtype=jnp.float32)
    network = nnx.eval_shape(lambda: create(name, rngs=nnx.Rngs(0), **how))
    params = nnx.state(network, nnx.Param)
    return sum(leaf.size for leaf in jax.tree.leaves(params))
