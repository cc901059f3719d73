"""What one training run is: every value that decides its result, checked, in one frozen record."""

import dataclasses
import hashlib
import json
import math
from typing import Any

import jax

from experiments.config.checks import check, one_of
from experiments.config.choices import DATASETS, METHODS, OPTIMIZERS, PRECISIONS, RECIPES
from experiments.config.defaults import (
    DATASET_DEFAULTS,
    DEFAULT_RHO,
    OPTIMIZER_DEFAULTS,
    PAPER_EPOCHS,
    SCRIPT,
)
from experiments.config.errors import ConfigError
from experiments.config.step_forms import EXACT

# Other names that JAX has for the same.
_JAX_PRECISIONS = {"fastest": "default", "bfloat16": "default", "bfloat16_3x": "high"}
_JAX_PRECISIONS |= {"tensorfloat32": "high", "float32": "highest"}

# Fields that came later: where they have these values, a run is named and written as before them.
LATER = {
    "variant": EXACT,
    "weight": 0.0,
    "validation": 0.0,
    "test_every": 1,
    "recipe": "paper",
    "precision": "default",
    "radius_rule": "fixed",
    "target": 0.0,
    "optimizer": "sgd",
    "warmup": 0.0,
}


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """All that a run's result depends on, apart from the data's bytes and the versions."""

    dataset: str
    model: str
    method: str
    rho: float
    eta: float
    p: float
    normalization: str
    adapt: str
    label_noise: float
    noise_seed: int
    subset: int | None
    epochs: int
    batch_size: int
    lr: float
    momentum: float
    nesterov: bool
    weight_decay: float
    label_smoothing: float
    augment: bool
    cutout: int
    dtype: str
    devices: int
    perturb: str
    batch_norm: str
    seed: int
    variant: str
    weight: float
    validation: float
    test_every: int
    recipe: str
    precision: str
    radius_rule: str
    target: float
    optimizer: str
    warmup: float

    def as_json(self) -> dict[str, Any]:
        """A dict of strict JSON values (p = infinity becomes the string 'inf')."""
        values = dataclasses.asdict(self)
        if math.isinf(self.p):
            values["p"] = "inf"
        return {n: v for n, v in values.items() if n not in LATER or v != LATER[n]}

    def run_id(self, fingerprint: str) -> str:
        """Twelve hex digits that name this run on this copy of the data."""
        text = json.dumps([self.as_json(), fingerprint], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def make(
    dataset: str = "digits",
    method: str = "asam",
    *,
    model: str | None = None,
    rho: float | None = None,
    eta: float | None = None,
    p: float | None = None,
    normalization: str | None = None,
    adapt: str | None = None,
    label_noise: float = 0.0,
    noise_seed: int = 0,
    subset: int | None = None,
    epochs: int | None = None,
    batch_size: int = 128,
    lr: float | None = None,
    momentum: float | None = None,
    nesterov: bool | None = None,
    weight_decay: float | None = None,
    label_smoothing: float | None = None,
    augment: bool | None = None,
    cutout: int = 0,
    dtype: str = "float32",
    devices: int = 1,
    perturb: str | None = None,
    batch_norm: str | None = None,
    seed: int = 0,
    variant: str = EXACT,
    weight: float = 0.0,
    validation: float = 0.0,
    test_every: int = 1,
    recipe: str = "paper",
    precision: str | None = None,
    radius_rule: str = "fixed",
    target: float = 0.0,
    optimizer: str = "sgd",
    warmup: float = 0.0,
) -> RunConfig:
    """Fills what is left out (None) with the defaults of data set, method and base optimizer."""
    one_of("dataset", dataset, DATASETS)
    one_of("method", method, METHODS)
    one_of("recipe", recipe, RECIPES)
    one_of("optimizer", optimizer, OPTIMIZERS)
    if precision is not None:
        one_of("precision", precision, PRECISIONS)
    defaults = DATASET_DEFAULTS[dataset] | OPTIMIZER_DEFAULTS[optimizer]
    if recipe == "script":
        nesterov = SCRIPT["nesterov"] if nesterov is None else nesterov
        eta = SCRIPT["eta"] if eta is None and method == "asam" else eta
    method_values = _method_values(dataset, method, rho, eta, p, normalization, adapt)
    augment = bool(defaults["augment"] if augment is None else augment)
    config = RunConfig(
        dataset=dataset,
        method=method,
        model=defaults["model"] if model is None else model,
        **method_values,
        label_noise=float(label_noise),
        noise_seed=noise_seed,
        subset=subset,
        epochs=defaults.get("epochs", PAPER_EPOCHS[method]) if epochs is None else epochs,
        batch_size=batch_size,
        lr=float(defaults["lr"] if lr is None else lr),
        momentum=float(defaults["momentum"] if momentum is None else momentum),
        nesterov=defaults["nesterov"] if nesterov is None else nesterov,
        weight_decay=float(defaults["weight_decay"] if weight_decay is None else weight_decay),
        label_smoothing=float(
            defaults["label_smoothing"] if label_smoothing is None else label_smoothing
        ),
        augment=augment,
        cutout=cutout,
        dtype=dtype,
        devices=devices,
        **_device_values(devices, perturb, batch_norm),
        seed=seed,
        variant=variant,
        weight=float(weight),
        validation=float(validation),
        test_every=test_every,
        recipe=recipe,
        precision=precision_of_jax() if precision is None else precision,
        radius_rule=radius_rule,
        target=float(target),
        optimizer=optimizer,
        warmup=float(warmup),
    )
    check(config)
    return config


def precision_of_jax() -> str:
    """What `jax_default_matmul_precision` is set to: what decides a result is in its line."""
    wanted = getattr(jax.config, "jax_default_matmul_precision", None) or "default"
    return _JAX_PRECISIONS.get(wanted, wanted)


def _method_values(dataset, method, rho, eta, p, normalization, adapt) -> dict[str, Any]:
    """The perturbation's own values; those that a method does not have must not be given."""
    given = dict(rho=rho, eta=eta, p=p, normalization=normalization, adapt=adapt)
    foreign = {"sgd": tuple(given), "sam": ("eta", "normalization", "adapt"), "asam": ()}[method]
    for name in foreign:
        if given[name] is not None:
            raise ConfigError(
                f"{name}={given[name]!r} means nothing to method {method!r}; leave --{name} out."
            )
    if method == "sgd":
        return dict(rho=0.0, eta=0.0, p=2.0, normalization="none", adapt="none")
    values: dict[str, Any] = dict(
        rho=float(DEFAULT_RHO[dataset][method] if rho is None else rho),
        p=float(2.0 if p is None else p),
    )
    if method == "sam":
        return values | dict(eta=0.0, normalization="identity", adapt="none")
    return values | dict(
        eta=float(0.01 if eta is None else eta),
        normalization="elementwise" if normalization is None else normalization,
        adapt="not_bias" if adapt is None else adapt,
    )


def _device_values(devices: int, perturb: str | None, batch_norm: str | None) -> dict[str, Any]:
    """What several devices share; one device shares all of it with itself."""
    if devices == 1:
        for name, value in (("perturb", perturb), ("batch_norm", batch_norm)):
            if value is not None:
                flag = name.replace("_", "-")
                raise ConfigError(
                    f"{name}={value!r} means nothing on one device; leave --{flag} out, or train "
                    "on several with --devices or --distributed."
                )
    # One eps and one set of statistics for the whole batch: what the paper's code, which runs on
    # one device, computes.
    return dict(perturb=perturb or "all", batch_norm=batch_norm or "averaged")
