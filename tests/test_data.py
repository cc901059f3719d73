"""The digits, label noise, subsets, fingerprints, and augmentation against loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.datasets import arrays, augmentation
from tests.runs import made

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


@pytest.fixture(scope="module")
def digits():
    return arrays.load("digits")


def test_the_digits_are_cut_by_class_and_keep_their_grey_levels(digits):
    from sklearn.datasets import load_digits

    assert digits.train_images.shape == (1297, 8, 8, 1) and digits.test_images.shape[0] == 500
    assert digits.image_shape == (8, 8, 1) and digits.num_classes == 10
    assert np.bincount(digits.test_labels).min() >= 48
    ours = np.concatenate([digits.train_images, digits.test_images]).reshape(-1, 64)
    back = np.rint(ours / 255 * 16).tolist()
    assert sorted(back) == sorted(load_digits().data.tolist())


def test_channel_statistics_are_those_of_all_pixels():
    images = np.random.default_rng(0).integers(256, size=(7, 5, 4, 3), dtype=np.uint8)
    mean, std = arrays.channel_statistics(images)
    np.testing.assert_allclose(mean, (images / 255).mean((0, 1, 2)), atol=1e-6)
    np.testing.assert_allclose(std, (images / 255).std((0, 1, 2)), atol=1e-6)


@pytest.mark.parametrize("noise", [0.0, 0.2, 0.8, 1.0])
def test_symmetric_noise_draws_from_all_classes(noise):
    labels = np.repeat(np.arange(10, dtype=np.int32), 5000)
    noisy = arrays.symmetric_noise(labels, noise, 10, seed=1)
    assert noisy.dtype == np.int32 and set(noisy.tolist()) <= set(range(10))
    # The true class can be drawn: a tenth of the replaced labels stays right.
    share = np.mean(noisy != labels)
    assert abs(share - 0.9 * noise) < 0.01
    if noise == 1.0:
        counts = np.array([np.bincount(noisy[labels == c], minlength=10) for c in range(10)])
        assert abs(counts - 500).max() < 120  # uniform whatever the true class


def test_noise_has_a_seed_of_its_own_and_grows_with_its_level():
    labels = np.zeros(2000, np.int32)
    a = arrays.symmetric_noise(labels, 0.4, 10, seed=0)
    np.testing.assert_array_equal(a, arrays.symmetric_noise(labels, 0.4, 10, seed=0))
    assert (a != arrays.symmetric_noise(labels, 0.4, 10, seed=1)).any()
    less = arrays.symmetric_noise(labels, 0.2, 10, seed=0)
    changed = less != labels
    np.testing.assert_array_equal(a[changed], less[changed])


def test_a_run_gets_the_first_images_and_its_noise(digits):
    run = made(label_noise=0.4, subset=300)
    cut = arrays.prepare(digits, run)
    np.testing.assert_array_equal(cut.train_images, digits.train_images[:300])
    np.testing.assert_array_equal(cut.test_labels, digits.test_labels)
    assert cut.labels_changed == np.mean(cut.train_labels != digits.train_labels[:300])
    assert 0.25 < cut.labels_changed < 0.45
    assert cut.mean == digits.mean  # normalised as the whole set
    whole = arrays.prepare(digits, made(label_noise=0.4))
    np.testing.assert_array_equal(cut.train_labels, whole.train_labels[:300])


def test_one_other_byte_makes_another_fingerprint(digits):
    images = digits.train_images.copy()
    images[0, 0, 0, 0] ^= 1
    other = arrays.from_arrays(
        "digits", 10, images, digits.train_labels, digits.test_images, digits.test_labels
    )
    assert len(other.fingerprint) == 16 and other.fingerprint != digits.fingerprint


def test_validation_labels_are_true_or_as_noisy_as_those_that_are_trained_on(digits):
    runs = [made(label_noise=0.4, validation=0.25, noisy_validation=n) for n in (False, True)]
    true, noisy = (arrays.prepare(digits, run) for run in runs)
    np.testing.assert_array_equal(noisy.train_labels, true.train_labels)
    np.testing.assert_array_equal(noisy.test_images, true.test_images)
    assert 0.25 < np.mean(noisy.test_labels != true.test_labels) < 0.5


def test_a_draw_of_its_own_is_another_subset_and_other_noise(digits):
    """And the validation images are none of those that are trained on."""
    runs = [made(label_noise=0.4, subset=300, data_seed=n, validation=0.5) for n in (0, 0, 1)]
    first, again, other = (arrays.prepare(digits, run) for run in runs)
    np.testing.assert_array_equal(first.train_images, again.train_images)
    np.testing.assert_array_equal(first.train_labels, again.train_labels)
    assert len(first.train_labels) == len(first.test_labels) == 150
    known = {image.tobytes() for image in digits.train_images}
    drawn = [{image.tobytes() for image in part.train_images} for part in (first, other)]
    assert drawn[0] <= known and len(drawn[0] & drawn[1]) < 60
    held_out = {image.tobytes() for image in first.test_images}
    assert len(held_out & drawn[0]) < 3  # a few digits are in the set twice
    true = dict(zip((i.tobytes() for i in digits.train_images), digits.train_labels, strict=True))
    assert [true[i.tobytes()] for i in first.test_images] == first.test_labels.tolist()


def images_of(count=16, size=12):
    return np.random.default_rng(0).integers(256, size=(count, size, size, 3), dtype=np.uint8)


def loops(images, draws, cutout):
    """Pads with black, crops, mirrors and blanks, pixel by pixel."""
    pad, (_, height, width, _) = augmentation.PAD, images.shape
    out = np.zeros(images.shape, np.int64)
    for b in range(len(images)):
        padded = np.pad(images[b], [(pad, pad), (pad, pad), (0, 0)])
        top, left = np.asarray(draws.shift[b]) + pad
        crop = padded[top : top + height, left : left + width]
        if draws.flip[b]:
            crop = crop[:, ::-1]
        first = np.asarray(draws.center[b]) - cutout // 2
        for at in np.ndindex(height, width):
            blank = all(0 <= d < cutout for d in at - first)
            out[b][at] = augmentation.BLANK if blank else crop[at]
    return out


@pytest.mark.parametrize("cutout", [0, 5, 6, 30])
def test_equals_the_loops(cutout):
    images, key = images_of(), jax.random.key(3)
    draws = augmentation.draw(key, len(images), images.shape[1:3])
    augmented = augmentation.augment(key, jnp.asarray(images), cutout)
    assert augmented.dtype == jnp.int16
    np.testing.assert_array_equal(augmented, loops(images, draws, cutout))


def test_chance_is_fair_and_keyed():
    draws = augmentation.draw(jax.random.key(0), 9000, (32, 32))
    counts = np.bincount(np.asarray(draws.shift).ravel() + 4, minlength=9)
    assert counts.min() > 1800 and counts.size == 9  # 2000 each of -4 to 4
    assert abs(float(draws.flip.mean()) - 0.5) < 0.02
    centers = np.bincount(np.asarray(draws.center).ravel(), minlength=32)
    assert centers.size == 32 and centers.min() > 450
    other = augmentation.draw(jax.random.key(1), 9000, (32, 32))
    assert (np.asarray(other.shift) != np.asarray(draws.shift)).mean() > 0.8


def test_normalisation_and_the_blank_that_becomes_the_mean():
    images = images_of()
    marked, expected = images.astype(np.int16), (images / 255 - np.array(MEAN)) / np.array(STD)
    for pixels in (images, marked):
        found = augmentation.normalize(jnp.asarray(pixels), MEAN, STD, jnp.dtype("float32"))
        np.testing.assert_allclose(found, expected, atol=1e-5)
        marked[:, 2:5, 3:7], expected[:, 2:5, 3:7] = augmentation.BLANK, 0
    half = augmentation.normalize(jnp.asarray(images), MEAN, STD, jnp.bfloat16)
    assert half.dtype == jnp.bfloat16
