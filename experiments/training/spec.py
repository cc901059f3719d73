"""What fixes a step, what it takes as arguments, and what it carries along."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from experiments.config.run_config import RunConfig
from experiments.datasets.arrays import Dataset

# The mesh axis over which the batch is cut.
AXIS = "data"
# Mean and deviation of the channels as the authors' script has them. Those of CIFAR-10 are means of
# each image's own deviation, about a fifth less than the pixels'.
SCRIPT_STATISTICS = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "cifar100": ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
}


@dataclasses.dataclass(frozen=True)
class ModelSpec:
    """What fixes a network's computation, and so its compiled evaluation."""

    name: str
    num_classes: int
    image_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    dtype: str
    precision: str = "default"  # of products and convolutions
    norm_axis: str | None = None  # BatchNorm averages its statistics over this mapped axis


@dataclasses.dataclass(frozen=True)
class StepSpec:
    """What fixes a step's computation: a value here costs a compilation, one in Hyper does not."""

    model: ModelSpec
    method: str
    normalization: str
    adapt: str
    eta: float
    p: float
    nesterov: bool
    augment: bool
    cutout: int
    batch_size: int
    devices: int
    perturb: str
    batch_norm: str
    variant: str
    recipe: str
    optimizer: str = "sgd"
    # Images of this step, where they are fewer than the others have.
    images: int | None = None
    # Whether this step climbs, where the host decides; None: decided in the program.
    climb: bool | None = None

    @property
    def axis_name(self) -> str | None:
        """The mapped axis that the step averages over; None on a single device."""
        return AXIS if self.devices > 1 else None

    @property
    def local_batch(self) -> int:
        """Images that a device sees in a step."""
        return self.batch_size // self.devices

    @property
    def keeps_partial(self) -> bool:
        """Whether the images that fill no batch make a last, smaller one, as in the script."""
        return self.recipe == "script"

    def steps(self, images: int) -> int:
        """Steps of an epoch of so many images."""
        whole, rest = divmod(images, self.batch_size)
        return whole + (self.keeps_partial and rest > 0)

    def at(self, step: int, images: int) -> "StepSpec":
        """The spec of a step of such an epoch."""
        rest = images % self.batch_size
        if not self.keeps_partial or not rest or (step + 1) % self.steps(images):
            return self
        return dataclasses.replace(self, images=rest)


class Hyper(NamedTuple):
    """Numbers that a compiled step takes as arguments."""

    lr: jax.Array
    momentum: jax.Array
    weight_decay: jax.Array
    rho: jax.Array
    label_smoothing: jax.Array
    weight: jax.Array  # of the form's rule of descent
    total_steps: jax.Array
    # Share of the steps over which the learning rate rises; None: a program without it.
    warmup: jax.Array | None = None


class TrainState(NamedTuple):
    """All that changes while training; sums run over the current epoch's first passes."""

    params: Any
    rest: Any  # BatchNorm statistics and the like
    opt_state: Any
    memory: Any  # of the form of ascent
    seed: jax.Array
    step: jax.Array
    loss_sum: jax.Array
    correct_sum: jax.Array


def spec_of(config: RunConfig, dataset: Dataset) -> StepSpec:
    """The static half of a run."""
    mean, std = dataset.mean, dataset.std
    if config.recipe == "script":
        mean, std = SCRIPT_STATISTICS[config.dataset]
    model = ModelSpec(
        name=config.model,
        num_classes=dataset.num_classes,
        image_shape=dataset.image_shape,
        mean=mean,
        std=std,
        dtype=config.dtype,
        precision=config.precision,
        norm_axis=AXIS if config.devices > 1 and config.batch_norm == "averaged" else None,
    )
    names = {field.name for field in dataclasses.fields(StepSpec)} - {"model", "climb", "images"}
    return StepSpec(model=model, **{name: getattr(config, name) for name in names})


def hyper_of(config: RunConfig, total_steps: int) -> Hyper:
    """The traced half of a run."""
    values = {n: getattr(config, n) for n in Hyper._fields if n not in ("total_steps", "warmup")}
    values |= {"total_steps": total_steps} | ({"warmup": config.warmup} if config.warmup else {})
    return Hyper(**{name: jnp.float32(value) for name, value in values.items()})
