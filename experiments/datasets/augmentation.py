"""Crop, flip, cutout and normalisation of a batch on the device, keyed.

A batch of 128 CIFAR images takes half a millisecond on a CPU core, a step of ResNet-20 hundreds.

References:
  DeVries and Taylor 2017, "Improved Regularization of Convolutional Neural Networks with Cutout",
  arXiv 1708.04552.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

PAD = 4  # black pixels on every side, before a crop of the image's own size
# Marks a pixel that cutout took; `normalize` makes it zero in every channel, the mean's value.
BLANK = -1


class Draws(NamedTuple):
    """What chance decides for each image of a batch."""

    shift: jax.Array  # (batch, 2) int32, -PAD to PAD: rows and columns that the crop moves
    flip: jax.Array  # (batch,) bool
    center: jax.Array  # (batch, 2) int32: the row and column of the square that cutout takes


def draw(key: jax.Array, count: int, size: tuple[int, int]) -> Draws:
    """For `count` images of height and width `size`."""
    shift_key, flip_key, center_key = jax.random.split(key, 3)
    return Draws(
        jax.random.randint(shift_key, (count, 2), -PAD, PAD + 1),
        jax.random.bernoulli(flip_key, 0.5, (count,)),
        jax.random.randint(center_key, (count, 2), 0, jnp.asarray([size], jnp.int32)),
    )


def augment(key: jax.Array, images: jax.Array, cutout: int) -> jax.Array:
    """A random crop of the padded image, perhaps its mirror image, perhaps without a square.

    Args:
      key: decides everything; the same key gives the same batch.
      images: uint8 (batch, height, width, channels).
      cutout: side of the square that is blanked, its centre anywhere in the image, what reaches
        over the border cut off; 0 is none.

    Returns:
      int16, of the images' shape: bytes, and BLANK in the square.
    """
    count, height, width, _ = images.shape

    def one(padded, shift, flip, center):
        start = (*(PAD + shift), 0)
        cropped = jax.lax.dynamic_slice(padded, start, images.shape[1:])
        cropped = jnp.where(flip, cropped[:, ::-1], cropped)
        top, left = center - cutout // 2
        rows, columns = jnp.arange(height)[:, None, None], jnp.arange(width)[None, :, None]
        square = (
            (top <= rows) & (rows < top + cutout) & (left <= columns) & (columns < left + cutout)
        )
        return jnp.where(square, BLANK, cropped)

    padded = jnp.pad(images.astype(jnp.int16), [(0, 0), (PAD, PAD), (PAD, PAD), (0, 0)])
    return jax.vmap(one)(padded, *draw(key, count, (height, width)))


def normalize(
    images: jax.Array, mean: tuple[float, ...], std: tuple[float, ...], dtype: jnp.dtype
) -> jax.Array:
    """(image / 255 - mean) / std by channel, computed in float32 and given in `dtype`.

    Args:
      images: uint8, or what `augment` returns: BLANK becomes zero.
      mean: of each channel, on the scale from 0 to 1.
      std: standard deviation of each channel, on that scale.
      dtype: of the result.
    """
    scale = jnp.asarray([[[[1 / (255 * s) for s in std]]]], jnp.float32)
    shift = jnp.asarray([[[[m / s for m, s in zip(mean, std, strict=True)]]]], jnp.float32)
    scaled = images.astype(jnp.float32) * scale - shift
    if images.dtype != jnp.uint8:
        scaled = jnp.where(images == BLANK, 0.0, scaled)
    return scaled.astype(dtype)
