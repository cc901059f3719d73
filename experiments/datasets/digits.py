"""The 1,797 8x8 digits that scikit-learn ships: 1,297 to train on, 500 to test, per class."""

from pathlib import Path
from typing import Any

import numpy as np

from experiments.datasets.source import Source


def _arrays(data_dir: Path | None) -> Any:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    del data_dir
    images, labels = load_digits(return_X_y=True)
    # 17 grey levels, spread over a byte so that every data set has one scale.
    pixels = np.rint(images.reshape(-1, 8, 8, 1) * (255 / 16)).astype(np.uint8)
    train, test, train_labels, test_labels = train_test_split(
        pixels, labels.astype(np.int32), test_size=500, stratify=labels, random_state=0
    )
    return train, train_labels, test, test_labels


# Small and centred: no augmentation, no smoothing. The radii are the paper's for CIFAR-10.
SOURCES = {
    "digits": Source(
        num_classes=10,
        arrays=_arrays,
        rho={"sam": 0.05, "asam": 0.5},
        defaults=dict(model="cnn", epochs=30, label_smoothing=0.0, augment=False, nesterov=False),
    )
}
