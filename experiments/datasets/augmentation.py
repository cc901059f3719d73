"""Crop, flip, cutout and normalisation of a batch on the device, keyed.

A batch of 128 CIFAR images takes 0.3 ms on one CPU core, where a step of ResNet-20 takes hundreds.

References:
  DeVries and Taylor 2017, "Improved Regularization of Convolutional Neural Networks with Cutout",
  arXiv 1708.04552.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

# Marks a pixel that cutout took; `normalize` makes it zero in every channel, the mean's value.
BLANK = -1


class Draws(NamedTuple):
    """What chance decides for each image of a batch."""

    shift: jax.Array  # (batch, 2) int32, -pad to pad: rows and columns that the crop moves
    flip: jax.Array  # (batch,) bool
    center: jax.Array  # (batch, 2) int32: the row and column of the square that cutout takes


def draw(key: jax.Array, count: int, size: tuple[int, int], pad: int) -> Draws:
    """All offsets of a batch of `count` images of height and width `size`."""
    shift_key, flip_key, center_key = jax.random.split(key, 3)
    return Draws(
        jax.random.randint(shift_key, (count, 2), -pad, pad + 1),
        jax.random.bernoulli(flip_key, 0.5, (count,)),
        jax.random.randint(center_key, (count, 2), 0, jnp.asarray([size], jnp.int32)),
    )


def augment(key: jax.Array, images: jax.Array, *, pad: int, flip: bool, cutout: int) -> jax.Array:
    """A random crop of the padded image, perhaps its mirror image, perhaps without a square.

    Args:
      key: decides everything; the same key gives the same batch.
      images: uint8 (batch, height, width, channels).
      pad: black pixels put on every side before a crop of the image's own size; 0 is no crop.
      flip: whether half of the images, by chance, are mirrored from left to right.
      cutout: side of the square that is blanked, its centre anywhere in the image, what reaches
        over the border cut off; 0 is none.

    Returns:
      int16, of the images' shape: bytes, and BLANK in the square.
    """
    count, height, width, _ = images.shape
    draws = draw(key, count, (height, width), pad)
    rows_BxH = jnp.arange(height)[None, :] + draws.shift[:, :1]
    columns_W = jnp.arange(width)[None, :]
    if flip:
        columns_W = jnp.where(draws.flip[:, None], columns_W[:, ::-1], columns_W)
    columns_BxW = columns_W + draws.shift[:, 1:]
    picked = images[
        jnp.arange(count)[:, None, None],
        jnp.clip(rows_BxH, 0, height - 1)[:, :, None],
        jnp.clip(columns_BxW, 0, width - 1)[:, None, :],
    ].astype(jnp.int16)
    inside = _grid(_within(rows_BxH, height), _within(columns_BxW, width))
    cropped = jnp.where(inside, picked, 0)
    if cutout == 0:
        return cropped
    corner_Bx2 = draws.center - cutout // 2
    square = _grid(
        _within(jnp.arange(height)[None, :] - corner_Bx2[:, :1], cutout),
        _within(jnp.arange(width)[None, :] - corner_Bx2[:, 1:], cutout),
    )
    return jnp.where(square, BLANK, cropped)


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


def _within(positions: jax.Array, size: int) -> jax.Array:
    return (positions >= 0) & (positions < size)


def _grid(rows_BxH: jax.Array, columns_BxW: jax.Array) -> jax.Array:
    """Where both hold, (batch, height, width, 1)."""
    return rows_BxH[:, :, None, None] & columns_BxW[:, None, :, None]
