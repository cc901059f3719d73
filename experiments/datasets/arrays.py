"""Images and labels as NumPy arrays, the label noise, and the fingerprint that names a copy."""

import dataclasses
import hashlib
from pathlib import Path

import numpy as np

from experiments.config.errors import ConfigError
from experiments.config.run_config import RunConfig


@dataclasses.dataclass(frozen=True)
class Dataset:
    """uint8 images (count, height, width, channels) and int32 labels, training and test."""

    name: str
    num_classes: int
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    fingerprint: str
    # Per channel, of all training images scaled to [0, 1]; a subset is normalised by these, too.
    mean: tuple[float, ...]
    std: tuple[float, ...]
    # Fraction of training labels that differ from the true ones.
    labels_changed: float = 0.0

    @property
    def image_shape(self) -> tuple[int, int, int]:
        height, width, channels = self.train_images.shape[1:]
        return height, width, channels


def load(name: str, data_dir: Path | None = None) -> Dataset:
    """The data set as it is, without noise; `data_dir` is tfds' folder (None: its own default)."""
    if name == "digits":
        return _digits()
    if name in ("cifar10", "cifar100"):
        from experiments.datasets import cifar

        return from_arrays(name, 10 if name == "cifar10" else 100, *cifar.arrays(name, data_dir))
    raise ConfigError(f"unknown dataset {name!r}; the known ones are: digits, cifar10, cifar100.")


def from_arrays(name, num_classes, train_images, train_labels, test_images, test_labels) -> Dataset:
    """A data set of these four arrays, with its fingerprint and channel statistics."""
    digest = hashlib.sha256()
    for array in (train_images, train_labels, test_images, test_labels):
        digest.update(str((array.dtype.str, array.shape)).encode())
        digest.update(np.ascontiguousarray(array).data)
    mean, std = channel_statistics(train_images)
    return Dataset(
        name=name,
        num_classes=num_classes,
        train_images=train_images,
        train_labels=train_labels,
        test_images=test_images,
        test_labels=test_labels,
        fingerprint=digest.hexdigest()[:16],
        mean=mean,
        std=std,
    )


def channel_statistics(images: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel on the scale [0, 1], from counts of bytes."""
    values = np.arange(256) / 255
    means, stds = [], []
    for channel in range(images.shape[-1]):
        counts = np.bincount(images[..., channel].ravel(), minlength=256)
        mean = float(counts @ values / counts.sum())
        means.append(round(mean, 6))
        stds.append(round(float(np.sqrt(counts @ (values - mean) ** 2 / counts.sum())), 6))
    return tuple(means), tuple(stds)


def _digits() -> Dataset:
    """The 1,797 8x8 digits that scikit-learn ships: 1,297 to train on, 500 to test, per class."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    # 17 grey levels, spread over a byte so that every data set has one scale.
    pixels = np.rint(images.reshape(-1, 8, 8, 1) * (255 / 16)).astype(np.uint8)
    train, test, train_labels, test_labels = train_test_split(
        pixels, labels.astype(np.int32), test_size=500, stratify=labels, random_state=0
    )
    return from_arrays("digits", 10, train, train_labels, test, test_labels)


def prepare(dataset: Dataset, config: RunConfig) -> Dataset:
    """The data of one run: label noise drawn for all training images, then the first `subset`.

    With `validation` the last share of those, under their true labels, stand in for the test
    images, and the run trains on the others.
    """
    count = len(dataset.train_labels)
    size = count if config.subset is None else config.subset
    if size > count:
        raise ConfigError(
            f"subset={size} is more than the {count} training images of {dataset.name}; "
            "ask for fewer or leave --subset out."
        )
    held_out = round(size * config.validation)
    kept = size - held_out
    if config.batch_size > kept:
        raise ConfigError(
            f"batch_size={config.batch_size} is larger than the {kept} training images; "
            f"use --batch-size {kept} or less."
        )
    labels = symmetric_noise(
        dataset.train_labels, config.label_noise, dataset.num_classes, config.noise_seed
    )
    changes: dict[str, np.ndarray] = {}
    if held_out:
        changes["test_images"] = dataset.train_images[kept:size]
        changes["test_labels"] = dataset.train_labels[kept:size]
    return dataclasses.replace(
        dataset,
        train_images=dataset.train_images[:kept],
        train_labels=labels[:kept],
        labels_changed=float(np.mean(labels[:kept] != dataset.train_labels[:kept])),
        **changes,
    )


def filled_up(images: np.ndarray, labels: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """As many images as `count`: those given, then black ones whose label is -1, "not counted"."""
    missing = count - len(labels)
    images = np.pad(images, [(0, missing), (0, 0), (0, 0), (0, 0)])
    return images, np.pad(labels, (0, missing), constant_values=-1)


def symmetric_noise(labels: np.ndarray, noise: float, num_classes: int, seed: int) -> np.ndarray:
    """Each label replaced, with probability `noise`, by one drawn uniformly from all classes.

    The true class can be drawn, so a share noise * (1 - 1 / num_classes) of the labels turns wrong.
    One uniform number decides each label: a label noisy at 20% is noisy at 40%, too.
    """
    rng = np.random.default_rng(seed)
    replaced = rng.random(len(labels)) < noise
    drawn = rng.integers(num_classes, size=len(labels), dtype=labels.dtype)
    return np.where(replaced, drawn, labels)
