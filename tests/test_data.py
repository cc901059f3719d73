"""The digits, label noise, subsets and fingerprints."""

import dataclasses

import numpy as np
import pytest

from experiments.config.errors import ConfigError
from experiments.datasets import arrays
from tests.runs import made


@pytest.fixture(scope="module")
def digits():
    return arrays.load("digits")


def test_the_digits_are_cut_by_class_and_keep_their_grey_levels(digits):
    from sklearn.datasets import load_digits

    assert digits.train_images.shape == (1297, 8, 8, 1) and digits.test_images.shape[0] == 500
    assert digits.image_shape == (8, 8, 1) and digits.num_classes == 10
    assert np.bincount(digits.test_labels).min() >= 48
    images, labels = load_digits(return_X_y=True)
    ours = np.concatenate([digits.train_images, digits.test_images]).reshape(-1, 64)
    back = np.rint(ours / 255 * 16)
    named = np.concatenate([digits.train_labels, digits.test_labels])
    assert sorted(map(tuple, np.column_stack([back, named]).tolist())) == sorted(
        map(tuple, np.column_stack([images, labels]).tolist())
    )


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


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"subset": 1298}, "subset=1298 is more than the 1297 training images of digits"),
        ({"subset": 100}, "batch_size=128 is larger than the 100 training images"),
    ],
)
def test_more_than_there_is_is_refused(digits, values, message):
    with pytest.raises(ConfigError, match=message):
        arrays.prepare(digits, made(**values))


def test_an_unknown_data_set():
    with pytest.raises(ConfigError, match="unknown dataset 'svhn'; the known ones are: cifar10, "):
        arrays.load("svhn")


def test_a_data_set_cannot_be_changed(digits):
    with pytest.raises(dataclasses.FrozenInstanceError):
        digits.name = "other"


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
