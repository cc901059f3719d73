"""Augmentation against loops over images and pixels, given what chance decided."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.datasets import augmentation

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


def images_of(count=16, size=12):
    return np.random.default_rng(0).integers(256, size=(count, size, size, 3), dtype=np.uint8)


def loops(images, draws, pad, flip, cutout):
    """Pads with black, crops, mirrors and blanks, pixel by pixel."""
    count, height, width, _ = images.shape
    out = np.zeros(images.shape, np.int64)
    for b in range(count):
        padded = np.zeros((height + 2 * pad, width + 2 * pad, 3), np.int64)
        padded[pad : pad + height, pad : pad + width] = images[b]
        top, left = np.asarray(draws.shift[b]) + pad
        crop = padded[top : top + height, left : left + width]
        if flip and draws.flip[b]:
            crop = crop[:, ::-1]
        for y in range(height):
            for x in range(width):
                cy, cx = np.asarray(draws.center[b])
                inside = (
                    -(cutout // 2) <= y - cy < cutout - cutout // 2
                    and -(cutout // 2) <= x - cx < cutout - cutout // 2
                )
                out[b, y, x] = augmentation.BLANK if cutout and inside else crop[y, x]
    return out


@pytest.mark.parametrize(
    ("pad", "flip", "cutout"), [(4, True, 6), (4, False, 0), (0, True, 5), (2, True, 30)]
)
def test_equals_the_loops(pad, flip, cutout):
    images, key = images_of(), jax.random.key(3)
    draws = augmentation.draw(key, len(images), images.shape[1:3], pad)
    made = augmentation.augment(key, jnp.asarray(images), pad=pad, flip=flip, cutout=cutout)
    assert made.dtype == jnp.int16
    np.testing.assert_array_equal(made, loops(images, draws, pad, flip, cutout))


def test_chance_is_fair_and_keyed():
    draws = augmentation.draw(jax.random.key(0), 9000, (32, 32), 4)
    counts = np.bincount(np.asarray(draws.shift).ravel() + 4, minlength=9)
    assert counts.min() > 1800 and counts.size == 9  # 2000 each of -4 to 4
    assert abs(float(draws.flip.mean()) - 0.5) < 0.02
    centers = np.bincount(np.asarray(draws.center).ravel(), minlength=32)
    assert centers.size == 32 and centers.min() > 450
    other = augmentation.draw(jax.random.key(1), 9000, (32, 32), 4)
    assert (np.asarray(other.shift) != np.asarray(draws.shift)).mean() > 0.8


def test_normalisation_and_the_blank_that_becomes_the_mean():
    images = images_of()
    expected = (images / 255 - np.array(MEAN)) / np.array(STD)
    made = augmentation.normalize(jnp.asarray(images), MEAN, STD, jnp.dtype("float32"))
    np.testing.assert_allclose(made, expected, atol=1e-5)
    marked = images.astype(np.int16)
    marked[:, 2:5, 3:7] = augmentation.BLANK
    expected[:, 2:5, 3:7] = 0
    made = augmentation.normalize(jnp.asarray(marked), MEAN, STD, jnp.dtype("float32"))
    np.testing.assert_allclose(made, expected, atol=1e-5)
    assert (
        augmentation.normalize(jnp.asarray(images), MEAN, STD, jnp.bfloat16).dtype == jnp.bfloat16
    )
