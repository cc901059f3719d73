"""The networks by name: each file's `MODELS` names its builder and the smallest image it takes.

Every network is called with images (batch, height, width, channels) and returns logits
(batch, classes). Parameters are float32; `dtype` is that of the computation.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from experiments.config.errors import ConfigError
from experiments.config.registry import collect


def names() -> list[str]:
    """All networks."""
    return list(collect(__name__, "MODELS"))


def known(name: str) -> tuple[Any, int]:
    """The builder of that name, and the smallest image it takes."""
    found = collect(__name__, "MODELS")
    if name not in found:
        raise ConfigError(f"unknown model {name!r}; the known ones are: {', '.join(found)}.")
    return found[name]


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
    build, smallest = known(name)
    height, width, channels = image_shape
    if min(height, width) < smallest:
        raise ConfigError(
            f"model {name!r} needs images of at least {smallest} pixels a side, and these have "
            f"{height}x{width}; choose a smaller model, such as 'cnn' or 'resnet20'."
        )
    return build(
        name,
        num_classes=num_classes,
        in_features=channels,
        image_shape=image_shape,
        rngs=rngs,
        dtype=dtype,
    )


def parameter_count(name: str, num_classes: int = 10) -> int:
    """Numbers that training changes, for CIFAR's 32x32 images; nothing is computed for it."""

    def build() -> Any:
        return create(
            name,
            num_classes=num_classes,
            image_shape=(32, 32, 3),
            rngs=nnx.Rngs(0),
            dtype=jnp.float32,
        )

    params = nnx.state(nnx.eval_shape(build), nnx.Param)
    return sum(leaf.size for leaf in jax.tree.leaves(params))
