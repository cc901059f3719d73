"""The defaults of a run and what its fields must agree in: the one place that knows them."""

import dataclasses
from collections.abc import Iterator
from typing import Any

from experiments import models
from experiments.config.errors import ConfigError
from experiments.config.run import Run, check, one_of
from experiments.datasets.source import source
from experiments.training import optimizers
from experiments.training.variants import EXACT, VARIANTS

# A step of SGD costs one gradient, one of SAM or ASAM two: the paper gives SGD twice the epochs.
PAPER_EPOCHS = {"sgd": 400, "sam": 200, "asam": 200}
# Of the perturbation, by method; those that a method does not have stand beside None.
_OF_METHOD: dict[str, dict[str, Any]] = {
    "sgd": dict(rho=0.0, eta=0.0, p=2.0, normalization="none", adapt="none"),
    "sam": dict(eta=0.0, normalization="identity", adapt="none"),
    "asam": {},
}
_ASAM = dict(p=2.0, eta=0.01, normalization="elementwise", adapt="not_bias")
# One eps and one set of statistics for the whole batch: what the paper's code, which runs on one
# device, computes.
_ONE_DEVICE = dict(perturb="all", batch_norm="averaged")


def resolve(run: Run) -> Run:
    """The run with every default filled in, checked; a resolved one comes back as it is."""
    check(run)
    one_of("model", run.model or "mlp", models.names())
    one_of("variant", run.variant, VARIANTS)
    found = source(run.dataset)
    defaults: dict[str, Any] = (
        dict(epochs=PAPER_EPOCHS[run.method], devices=1)
        | found.defaults
        | optimizers.DEFAULTS[run.optimizer]
        | dict(rho=found.rho.get(run.method))
        | _ASAM
        | _OF_METHOD[run.method]
        | _ONE_DEVICE
    )
    missing = {n: v for n, v in defaults.items() if getattr(run, n) is None}
    filled = dataclasses.replace(run, **missing)
    for where, only in _without_meaning(filled):
        for name, value in only.items():
            if (given := getattr(filled, name)) != value:
                flag = name.replace("_", "-")
                raise ConfigError(f"{name}={given!r} means nothing {where}; leave --{flag} out.")
    if filled.batch_size % filled.devices:
        raise ConfigError(
            f"batch_size={filled.batch_size} is not a multiple of the {filled.devices} devices "
            "that share it; choose one with --batch-size."
        )
    return filled


def _without_meaning(run: Run) -> Iterator[tuple[str, dict[str, Any]]]:
    """Where fields have no meaning, and the only values that they have there."""
    yield f"to method {run.method!r}", _OF_METHOD[run.method]
    if run.method == "sgd":
        yield "to method 'sgd'", dict(variant=EXACT)
    if run.devices == 1:
        yield "on one device (several: --devices, --distributed)", _ONE_DEVICE
    else:
        yield "on several devices", dict(variant=EXACT)
    if run.optimizer != "sgd":  # s^2 divides SGD's gradient
        yield f"to optimizer {run.optimizer!r}", dict(parameterization="as is")
        # A share of SGD's momentum, a sum of gradients, is taken away; the others keep a mean.
        if VARIANTS[run.variant].contrast:
            yield f"to optimizer {run.optimizer!r}", dict(variant=EXACT)
    if not run.augment:
        yield "without augmentation", dict(cutout=0)
