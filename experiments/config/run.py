"""What one training run is: every value that decides its result, said once.

From the fields of `Run` come the command line (by tyro, which shows the string below a field as its
help), the result line and the run's id. A field that is None has a default by data set, method and
optimizer; `training.resolve` fills it.
"""

import dataclasses
import hashlib
import json
import math
import typing
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from experiments.config.errors import ConfigError

_ALWAYS = object()
_T = TypeVar("_T")
if TYPE_CHECKING:  # as in a resolved run
    Filled = Annotated[_T, "None until the run is resolved"]
else:
    Filled = _T | None


def _field(default: Any, use: str, low: float = -math.inf, high: float = math.inf, later=_ALWAYS):
    """A field of a run.

    Args:
      default: its value where nothing is said.
      use: "program" is compiled into the step, "number" is an argument of the compiled step, and
        "data" decides the data, the network or the length of the training.
      low: the smallest value allowed.
      high: the largest one.
      later: for a field newer than stored results, the value that they had: with it, a run keeps
        the id that it had before the field came.
    """
    how = dict(use=use, low=low, high=high, later=later)
    return dataclasses.field(default=default, metadata=how)


@dataclasses.dataclass(frozen=True)
class Run:
    """All that a run's result depends on, apart from the data's bytes and the versions."""

    dataset: str = _field("digits", "data")
    """digits, cifar10, cifar100, or another file of experiments/datasets."""
    method: Literal["sgd", "sam", "asam"] = _field("asam", "program")
    """sgd: the base optimizer alone, whichever it is."""
    model: Filled[str] = _field(None, "data")
    """See the command models; else the data set's own."""
    epochs: Filled[int] = _field(None, "data", 1)
    """Passes over the training images; else the paper's."""
    seed: int = _field(0, "data", 0)
    """Decides the initial parameters, the order of the images and the augmentation."""
    rho: Filled[float] = _field(None, "number", 0)
    """Radius of the perturbation; else the paper's for the data set."""
    eta: Filled[float] = _field(None, "program", 0)
    """Added to every scale of T_w; else 0.01."""
    p: Filled[float] = _field(None, "program", 1)
    """Order of the region's norm, inf too; else 2."""
    normalization: Filled[Literal["none", "identity", "elementwise", "filterwise"]] = _field(
        None, "program"
    )
    """The normalization operator of asam; else elementwise."""
    adapt: Filled[Literal["none", "not_bias", "all"]] = _field(None, "program")
    """The leaves that asam's operator scales; else not_bias."""
    parameterization: Literal["as is", "ntk", "layer", "node"] = _field(
        "as is", "data", later="as is"
    )
    """w = s * theta, one factor s a leaf or a node; training is in theta, SGD in w unchanged."""
    label_noise: float = _field(0.0, "data", 0, 1)
    """Probability that a training label is drawn anew."""
    noise_seed: int = _field(0, "data", 0)
    """Seed of the label noise."""
    subset: int | None = _field(None, "data", 1)
    """Train on so many images only, the first ones; marked as reduced."""
    data_seed: int | None = _field(None, "data", 0, later=None)
    """Draws the subset at random and seeds the label noise in noise_seed's place."""
    validation: float = _field(0.0, "data", 0, 0.9, later=0.0)
    """Share of the training images that take the test images' place, under their true labels."""
    noisy_validation: bool = _field(False, "data", later=False)
    """The validation labels are drawn anew as the training labels are."""
    batch_size: int = _field(128, "program", 1)
    """Images in a step."""
    optimizer: Literal["sgd", "adamw", "muon"] = _field("sgd", "program", later="sgd")
    """The base optimizer."""
    lr: Filled[float] = _field(None, "number", 0)
    """Largest learning rate; else the optimizer's own."""
    warmup: float = _field(0.0, "program", 0, 0.9, later=0.0)
    """Share of the steps with a rising rate, before the cosine."""
    momentum: Filled[float] = _field(None, "number", 0, 1)
    """Momentum factor; else the optimizer's own."""
    nesterov: Filled[bool] = _field(None, "program")
    """Nesterov's momentum; else the data set's or the optimizer's own."""
    weight_decay: Filled[float] = _field(None, "number", 0)
    """Weight decay; else the optimizer's own."""
    label_smoothing: Filled[float] = _field(None, "number", 0, 1)
    """Share of the target that is spread evenly; else the data set's own."""
    augment: Filled[bool] = _field(None, "program")
    """Crop and flip; else the data set's own."""
    cutout: int = _field(0, "program", 0)
    """Side of cutout's square, 16 in Appendix B; 0 for none."""
    dtype: Literal["float32", "bfloat16"] = _field("float32", "data")
    """To compute in."""
    precision: Literal["default", "high", "highest"] = _field("default", "data", later="default")
    """Of products and convolutions, whatever JAX is set to."""
    variant: str = _field("exact", "program", later="exact")
    """Variant of sam's and asam's step: exact, every4, look4, part16, momentum, ..."""
    weight: float = _field(0.0, "number", 0, later=0.0)
    """Of LookSAM, GSAM or WSAM, or what LE-SAM's loss rises by."""
    weight_noise: int = _field(0, "data", 0, later=0)
    """Draws of noise on the final weights, under which the test accuracy is measured, too."""
    test_every: int = _field(1, "data", 1, later=1)
    """Epochs between two tests."""
    devices: Filled[int] = _field(None, "program", 1)
    """Devices that share a batch; else 1, or all there are with --distributed."""
    perturb: Filled[Literal["all", "device"]] = _field(None, "program")
    """all: one eps for the whole batch. device: each device its own."""
    batch_norm: Filled[Literal["averaged", "device"]] = _field(None, "data")
    """averaged: the whole batch's statistics. device: each device's own."""

    def as_json(self) -> dict[str, Any]:
        """A dict of strict JSON values (p = infinity becomes the string 'inf')."""
        values = dataclasses.asdict(self)
        return values | ({"p": "inf"} if self.p is not None and math.isinf(self.p) else {})

    def run_id(self, fingerprint: str) -> str:
        """Twelve hex digits that name this run on this copy of the data."""
        values = {n: v for n, v in self.as_json().items() if n not in LATER or v != LATER[n]}
        text = json.dumps([values, fingerprint], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def program(self) -> "Run":
        """The fields that are compiled into the step, all others None."""
        others = [name for name, f in FIELDS.items() if f.metadata["use"] != "program"]
        return dataclasses.replace(self, **dict.fromkeys(others))


FIELDS = {field.name: field for field in dataclasses.fields(Run)}
# Fields newer than stored results, and what those had.
LATER = {n: f.metadata["later"] for n, f in FIELDS.items() if f.metadata["later"] is not _ALWAYS}
# Arguments of the compiled step.
NUMBERS = tuple(name for name, f in FIELDS.items() if f.metadata["use"] == "number")


def check(run: Run) -> None:
    """Raises ConfigError for a value of a field that no run can have."""
    for name, field in FIELDS.items():
        value = getattr(run, name)
        kinds = (field.type, *typing.get_args(field.type))
        words = [w for kind in kinds for w in typing.get_args(kind) if isinstance(w, str)]
        if value is not None and words:
            one_of(name, value, words)
        low, high = field.metadata["low"], field.metadata["high"]
        if isinstance(value, int | float) and not low <= value <= high:
            bound = f"at least {low}" if high == math.inf else f"from {low} to {high}"
            raise ConfigError(f"{name}={value!r} must be {bound}.")


def one_of(name: str, value: str, known: typing.Iterable[str]) -> None:
    """Raises ConfigError for a word that is not among the known ones."""
    if value not in known:
        raise ConfigError(f"unknown {name} {value!r}; the known ones are: {', '.join(known)}.")
