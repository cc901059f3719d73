"""What a run is where nothing is said: the paper's values, by data set, method and optimizer."""

from typing import Any

# The paper's section 6.2 for CIFAR; on the digits the CIFAR-10 values serve, too.
DEFAULT_RHO = {
    "digits": {"sam": 0.05, "asam": 0.5},
    "cifar10": {"sam": 0.05, "asam": 0.5},
    "cifar100": {"sam": 0.1, "asam": 1.0},
}
# Digits are 8x8 and centred: no augmentation, no smoothing. On CIFAR: label smoothing, padded crop
# and flip; docs/reproducing.md says why no cutout. The paper's SGD cites Nesterov; one base
# optimizer serves all three methods, so that the perturbation is the only difference between them.
DATASET_DEFAULTS: dict[str, dict[str, Any]] = {
    "digits": dict(model="cnn", epochs=30, label_smoothing=0.0, augment=False, nesterov=False),
    "cifar10": dict(model="resnet20", label_smoothing=0.1, augment=True, nesterov=True),
    "cifar100": dict(model="resnet20", label_smoothing=0.1, augment=True, nesterov=True),
}
# What suits each base optimizer where nothing is said: the paper's values for SGD, which takes its
# Nesterov from the data set; those that transformers are trained with for the others.
OPTIMIZER_DEFAULTS: dict[str, dict[str, Any]] = {
    "sgd": dict(lr=0.1, momentum=0.9, weight_decay=5e-4),
    "adamw": dict(lr=1e-3, momentum=0.9, weight_decay=0.05, nesterov=False),
    "muon": dict(lr=1e-3, momentum=0.95, weight_decay=0.05, nesterov=True),
}
APPENDIX_B_CUTOUT = 16  # Figures 2 and 4
# The authors' script for CIFAR: what of it are values of a run. The rest is in the step: the
# statistics of both passes, a learning rate for each epoch, the last, partial batch.
SCRIPT = {"nesterov": False, "eta": 0.0}
# A step of SGD costs one gradient, one of SAM or ASAM two: the paper gives SGD twice the epochs.
PAPER_EPOCHS = {"sgd": 400, "sam": 200, "asam": 200}


def default_rho(dataset: str, method: str) -> float:
    """The method's own radius on a data set; SGD has none, 0."""
    return 0.0 if method == "sgd" else DEFAULT_RHO[dataset][method]
