"""The networks by name, after the definitions that each file names.

Every network is called with images (batch, height, width, channels) and returns logits
(batch, classes). Parameters are float32; `dtype` is that of the computation. Flax is loaded by the
first `create`, so that a list of the names costs nothing.
"""

import importlib
from typing import Any

# Name -> the file that defines it, in the order in which the CLI lists them.
NAMES = {
    "mlp": "small",
    "cnn": "small",
    "resnet8": "resnet",
    "resnet20": "resnet",
    "resnet32": "resnet",
    "resnet56": "resnet",
    "wrn16_8": "resnet",
    "wrn28_2": "resnet",
    "wrn28_10": "resnet",
    "resnext29_32x4d": "resnet",
    "densenet121": "densenet",
    "vgg19_bn": "vgg",
}


def create(name: str, *, num_classes: int, image_shape: tuple[int, int, int], rngs, dtype) -> Any:
    """A fresh `nnx.Module`, in training mode.

    Args:
      name: one of NAMES.
      num_classes: how many logits.
      image_shape: height, width and channels of an image.
      rngs: the `nnx.Rngs` that draws the initial values.
      dtype: float32 or bfloat16.

    Raises:
      ConfigError: no such name, or the images are too small for the network's downsamplings.
    """
    from experiments.config.errors import ConfigError

    if name not in NAMES:
        raise ConfigError(f"unknown model {name!r}; the known ones are: {', '.join(NAMES)}.")
    module = importlib.import_module(f"experiments.models.{NAMES[name]}")
    height, width, channels = image_shape
    if min(height, width) < module.SMALLEST_IMAGE:
        raise ConfigError(
            f"model {name!r} needs images of at least {module.SMALLEST_IMAGE} pixels a side, and "
            f"these have {height}x{width}; choose a smaller model, such as 'cnn' or 'resnet20'."
        )
    return module.build(
        name,
        num_classes=num_classes,
        in_features=channels,
        image_shape=image_shape,
        rngs=rngs,
        dtype=dtype,
    )


def parameter_count(name: str, num_classes: int = 10) -> int:
    """Numbers that training changes, for CIFAR's 32x32 images; nothing is computed for it."""
    import jax
    import jax.numpy as jnp
    from flax import nnx

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
