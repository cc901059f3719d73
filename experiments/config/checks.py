"""What a run's settings are checked for, one by one and against each other."""

import math
from typing import Any

from experiments.config.choices import (
    ADAPTS,
    BATCH_NORMS,
    DTYPES,
    NORMALIZATIONS,
    PERTURBS,
    RADIUS_RULES,
)
from experiments.config.errors import ConfigError
from experiments.config.model_names import MODEL_FILES
from experiments.config.step_forms import EXACT, STEP_FORMS


def check(config: Any) -> None:
    """Raises ConfigError for a value of a `RunConfig` that no run can have."""
    one_of("model", config.model, tuple(MODEL_FILES))
    one_of("dtype", config.dtype, DTYPES)
    one_of("perturb", config.perturb, PERTURBS)
    one_of("batch_norm", config.batch_norm, BATCH_NORMS)
    one_of("variant", config.variant, tuple(STEP_FORMS))
    one_of("radius_rule", config.radius_rule, RADIUS_RULES)
    if config.method == "asam":
        one_of("normalization", config.normalization, NORMALIZATIONS)
        one_of("adapt", config.adapt, ADAPTS)
    for name, low, high, meaning in (
        ("rho", 0, math.inf, "the radius of the perturbation"),
        ("eta", 0, math.inf, "the stabilizer of the normalization operator"),
        ("p", 1, math.inf, "the order of the norm"),
        ("label_noise", 0, 1, "the probability that a training label is drawn anew"),
        ("label_smoothing", 0, 1, "the weight of the uniform distribution in the target"),
        ("lr", 0, math.inf, "the largest learning rate"),
        ("momentum", 0, 1, "the momentum factor"),
        ("weight_decay", 0, math.inf, "the weight decay factor"),
        ("warmup", 0, 0.9, "the share of the steps over which the learning rate rises"),
        ("epochs", 1, math.inf, "the number of passes over the training images"),
        ("batch_size", 1, math.inf, "the number of images in a step"),
        ("subset", 1, math.inf, "the number of training images"),
        ("cutout", 0, math.inf, "the side of the square that cutout blanks"),
        ("devices", 1, math.inf, "the number of devices that share a batch"),
        ("weight", 0, math.inf, "the weight of the variant's rule"),
        ("test_every", 1, math.inf, "the number of epochs between two tests"),
        ("target", 0, math.inf, "what the radius rule aims at"),
        ("validation", 0, 0.9, "the share of the training images held out to choose by"),
    ):
        value = getattr(config, name)
        if value is not None and not low <= value <= high:
            bound = f"at least {low}" if high == math.inf else f"from {low} to {high}"
            raise ConfigError(f"{name}={value!r}: {meaning} must be {bound}.")
    if config.variant != EXACT and (config.method == "sgd" or config.devices > 1):
        raise ConfigError(
            f"variant={config.variant!r} is a form of sam and asam on one device; leave --variant "
            f"out for method {config.method!r} on {config.devices}."
        )
    rule = config.radius_rule
    if rule != "fixed" and (config.method == "sgd" or config.devices > 1):
        raise ConfigError(
            f"radius_rule={rule!r} chooses rho of sam and asam on one device; leave --radius-rule "
            f"out for method {config.method!r} on {config.devices}."
        )
    least = 1.0 if rule == "departure" else 0.0
    if rule != "fixed" and not (config.rho > 0 and config.target > least):
        raise ConfigError(
            f"radius_rule={rule!r} aims at target={config.target!r} from rho={config.rho!r} on; "
            f"give a --target above {least:g} and a --rho above 0."
        )
    if config.recipe == "script" and (config.dataset == "digits" or config.devices > 1):
        raise ConfigError(
            "recipe='script' is the authors' script for CIFAR on one device; leave --recipe out "
            f"for {config.dataset} on {config.devices}."
        )
    if config.recipe == "script" and config.variant != EXACT:
        raise ConfigError(
            f"recipe='script' has no form {config.variant!r}; leave --variant or --recipe out."
        )
    if config.recipe == "script" and (config.optimizer != "sgd" or config.warmup):
        raise ConfigError(
            "recipe='script' trains by SGD without a warm-up, as the authors' script does; leave "
            "--optimizer and --warmup out, or --recipe."
        )
    if STEP_FORMS[config.variant].contrast and config.optimizer != "sgd":
        raise ConfigError(
            f"variant={config.variant!r} takes a share of SGD's momentum, which is a sum of "
            f"gradients, away; {config.optimizer!r} keeps a mean. Leave --variant or --optimizer "
            "out."
        )
    if config.cutout and not config.augment:
        raise ConfigError(
            f"cutout={config.cutout} is a part of augmentation; leave --cutout or --no-augment out."
        )
    if config.batch_size % config.devices:
        raise ConfigError(
            f"batch_size={config.batch_size} is not a multiple of the {config.devices} devices "
            "that share it; choose one with --batch-size."
        )


def one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    """Raises ConfigError for a word that is not among the known ones."""
    if value not in known:
        raise ConfigError(f"unknown {name} {value!r}; the known ones are: {', '.join(known)}.")
