"""What a data set is: its arrays, and what a run on it is where nothing is said."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from experiments.config.registry import collect
from experiments.config.run import one_of


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


@dataclasses.dataclass(frozen=True)
class Source:
    """One entry of a file's `SOURCES`; a new data set is a new file of this folder.

    Attributes:
      num_classes: how many labels there are.
      arrays: the folder of tensorflow_datasets (None: its own default) to training images and
        labels, test images and labels.
      rho: the radius of sam and of asam.
      defaults: fields of `Run`.
    """

    num_classes: int
    arrays: Callable[[Path | None], tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]
    rho: dict[str, float]
    defaults: dict[str, Any]


def source(name: str) -> Source:
    """The data set of that name."""
    found = collect("experiments.datasets", "SOURCES")
    one_of("dataset", name, found)
    return found[name]
