"""The defaults of a run and what its fields must agree in: the one place that knows them."""

import dataclasses
from typing import Any

import jax

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
# What of the authors' script are fields of a run; the rest is in the step: the statistics of both
# passes, a learning rate for each epoch, the last, partial batch.
_SCRIPT: dict[str, Any] = dict(nesterov=False)
_ONE_DEVICE = dict(perturb="all", batch_norm="averaged")
# Other names that JAX has for the same.
_JAX_PRECISIONS = {"fastest": "default", "bfloat16": "default", "bfloat16_3x": "high"}
_JAX_PRECISIONS |= {"tensorfloat32": "high", "float32": "highest"}


def resolve(run: Run) -> Run:
    """The run with every default filled in, checked; a resolved one comes back as it is."""
    check(run)
    one_of("model", run.model or "mlp", models.names())
    one_of("variant", run.variant, VARIANTS)
    if run.precision is not None and run.precision != precision_of_jax():
        one_of("precision", run.precision, ("default", "high", "highest"))
    devices = 1 if run.devices is None else run.devices
    fixed = _OF_METHOD[run.method]
    _refuse_others(run, fixed, f"to method {run.method!r}; leave --{{flag}} out.")
    if devices == 1:
        said = "on one device; leave --{flag} out, or train on several with --devices or "
        _refuse_others(run, _ONE_DEVICE, f"{said}--distributed.")
    found = source(run.dataset)
    script: dict[str, Any] = _SCRIPT if run.recipe == "script" else {}
    if run.recipe == "script" and run.method == "asam":
        script = script | dict(eta=0.0)
    defaults: dict[str, Any] = (
        dict(epochs=PAPER_EPOCHS[run.method], precision=precision_of_jax(), devices=devices)
        | found.defaults
        | optimizers.DEFAULTS[run.optimizer]
        | dict(rho=found.rho.get(run.method))
        | _ASAM
        | script
        | fixed
        # One eps and one set of statistics for the whole batch: what the paper's code, which runs
        # on one device, computes.
        | _ONE_DEVICE
    )
    missing = {n: v for n, v in defaults.items() if getattr(run, n) is None}
    filled = dataclasses.replace(run, **missing)
    _check_together(filled)
    return filled


def precision_of_jax() -> str:
    """What `jax_default_matmul_precision` is set to: what decides a result is in its line."""
    wanted = getattr(jax.config, "jax_default_matmul_precision", None) or "default"
    return _JAX_PRECISIONS.get(wanted, wanted)


def _refuse_others(run: Run, fixed: dict[str, Any], why: str) -> None:
    """Raises for a field that has no meaning and another value than the one it has then."""
    for name, value in fixed.items():
        given = getattr(run, name)
        if given not in (None, value):
            flag = name.replace("_", "-")
            raise ConfigError(f"{name}={given!r} means nothing {why.format(flag=flag)}")


def _check_together(run: Run) -> None:
    """Raises for fields that exclude each other."""
    rule, where = run.radius_rule, f"for method {run.method!r} on {run.devices}."
    alone = run.method == "sgd" or run.devices > 1
    script = run.recipe == "script"
    for wrong, said in (
        (
            run.variant != EXACT and alone,
            f"variant={run.variant!r} is one of sam and asam on one device; leave --variant out "
            f"{where}",
        ),
        (
            rule != "fixed" and alone,
            f"radius_rule={rule!r} chooses rho of sam and asam on one device; leave --radius-rule "
            f"out {where}",
        ),
        (
            rule != "fixed" and not (run.rho > 0 and run.target > 0),
            f"radius_rule={rule!r} aims at target={run.target!r} from rho={run.rho!r} on; give a "
            f"--target above 0 and a --rho above 0.",
        ),
        (
            script and (source(run.dataset).script is None or run.devices > 1),
            "recipe='script' is the authors' script for CIFAR on one device; leave --recipe out "
            f"for {run.dataset} on {run.devices}.",
        ),
        (
            script and (run.variant != EXACT or run.optimizer != "sgd" or run.warmup > 0),
            "recipe='script' trains by SGD without a warm-up and has one variant, as the authors' "
            "script does; leave --variant, --optimizer and --warmup out, or --recipe.",
        ),
        (
            VARIANTS[run.variant].contrast and run.optimizer != "sgd",
            f"variant={run.variant!r} takes a share of SGD's momentum, which is a sum of "
            f"gradients, away; {run.optimizer!r} keeps a mean. Leave --variant or --optimizer out.",
        ),
        (
            run.parameterization != "as is" and run.optimizer != "sgd",
            f"parameterization={run.parameterization!r} divides SGD's gradient by s^2; leave it "
            f"or --optimizer {run.optimizer} out.",
        ),
        (
            run.cutout and not run.augment,
            f"cutout={run.cutout} is a part of augmentation; leave --cutout or --augment False "
            "out.",
        ),
        (
            run.batch_size % run.devices,
            f"batch_size={run.batch_size} is not a multiple of the {run.devices} devices that "
            "share it; choose one with --batch-size.",
        ),
    ):
        if wrong:
            raise ConfigError(said)
