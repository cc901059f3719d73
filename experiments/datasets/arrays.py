"""The arrays of a run: a data set, its fingerprint, a subset, label noise, a validation split."""

import dataclasses
import hashlib
from pathlib import Path

import numpy as np

from experiments.config.errors import ConfigError
from experiments.config.run import Run
from experiments.datasets.source import Dataset, source


def load(name: str, data_dir: Path | None = None) -> Dataset:
    """The data set as it is, without noise; `data_dir` is tfds' folder (None: its own default)."""
    found = source(name)
    return from_arrays(name, found.num_classes, *found.arrays(data_dir))


def from_arrays(name: str, num_classes: int, *four: np.ndarray) -> Dataset:
    """A data set of training images and labels, test images and labels, with what they tell."""
    digest = hashlib.sha256()
    for array in four:
        digest.update(str((array.dtype.str, array.shape)).encode())
        digest.update(np.ascontiguousarray(array).data)
    mean, std = channel_statistics(four[0])
    seen = digest.hexdigest()[:16]
    return Dataset(name, num_classes, *four, fingerprint=seen, mean=mean, std=std)


def channel_statistics(images: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel on the scale [0, 1], from counts of bytes."""
    pixels, values = images.reshape(-1, images.shape[-1]), np.arange(256)[:, None] / 255
    shares = np.apply_along_axis(np.bincount, 0, pixels, minlength=256) / len(pixels)
    mean = np.sum(shares * values, 0)
    std = np.sqrt(np.sum(shares * (values - mean) ** 2, 0))
    return tuple(mean.round(6).tolist()), tuple(std.round(6).tolist())


def sizes(dataset: Dataset, run: Run) -> tuple[int, int]:
    """How many images a run trains on, and how many of the others stand in for the test set.

    Raises:
      ConfigError: the data set has too few.
    """
    count = len(dataset.train_labels)
    size = count if run.subset is None else run.subset
    if size > count:
        raise ConfigError(
            f"subset={size} is more than the {count} training images of {dataset.name}; "
            "ask for fewer or leave --subset out."
        )
    held_out = round(size * run.validation)
    if run.batch_size > size - held_out:
        raise ConfigError(
            f"batch_size={run.batch_size} is larger than the {size - held_out} training images; "
            f"use --batch-size {size - held_out} or less."
        )
    return size - held_out, held_out


def prepare(dataset: Dataset, run: Run) -> Dataset:
    """The data of one run: label noise for all training images, then the subset.

    With `validation` its last share stands in for the test images, under the true labels unless
    `noisy_validation`, and the run trains on the others.
    """
    kept, held_out = sizes(dataset, run)
    order = np.arange(len(dataset.train_labels))
    if run.data_seed is not None:
        order = np.random.default_rng([1, run.data_seed]).permutation(order)
    seed = run.noise_seed if run.data_seed is None else run.data_seed
    noisy = symmetric_noise(dataset.train_labels, run.label_noise, dataset.num_classes, seed)
    train, held = order[:kept], order[kept : kept + held_out]
    judging = noisy if run.noisy_validation else dataset.train_labels
    tested = dict(test_images=dataset.train_images[held], test_labels=judging[held])
    return dataclasses.replace(
        dataset,
        train_images=dataset.train_images[train],
        train_labels=noisy[train],
        labels_changed=float(np.mean(noisy[train] != dataset.train_labels[train])),
        **(tested if held_out else {}),
    )


def symmetric_noise(labels: np.ndarray, noise: float, num_classes: int, seed: int) -> np.ndarray:
    """Each label replaced, with probability `noise`, by one drawn uniformly from all classes.

    The true class can be drawn, so a share noise * (1 - 1 / num_classes) of the labels turns wrong.
    One uniform number decides each label: a label noisy at 20% is noisy at 40%, too.
    """
    rng = np.random.default_rng(seed)
    replaced = rng.random(len(labels)) < noise
    drawn = rng.integers(num_classes, size=len(labels), dtype=labels.dtype)
    return np.where(replaced, drawn, labels)
