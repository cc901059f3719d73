"""What fixes a compiled step, what it takes as arguments, and what it carries along."""

import dataclasses
from typing import Any, NamedTuple

import jax

from experiments.config.run import Run
from experiments.datasets.source import Dataset

# The mesh axis over which the batch is cut.
AXIS = "data"


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
    parameterization: str = "as is"


@dataclasses.dataclass(frozen=True)
class StepSpec:
    """What fixes a step's computation: a value here costs a compilation, one in `Hyper` none."""

    model: ModelSpec
    run: Run  # the fields that are compiled into a step; the others are None
    # Whether this step perturbs, where the host decides; None: decided in the program.
    perturb: bool | None = None

    @property
    def axis_name(self) -> str | None:
        """The mapped axis that the step averages over; None on a single device."""
        return AXIS if self.run.devices > 1 else None

    @property
    def local_batch(self) -> int:
        """Images that a device sees in a step."""
        return self.run.batch_size // self.run.devices


# Numbers that a compiled step takes as arguments: those of the run, and "total_steps".
Hyper = dict[str, jax.Array]


class TrainState(NamedTuple):
    """All that changes while training; sums run over the current epoch's first passes."""

    params: Any  # theta, where the run has a parameterization
    rest: Any  # BatchNorm statistics and the like
    opt_state: Any
    memory: Any  # of the variant of the step
    seed: jax.Array
    step: jax.Array
    loss_sum: jax.Array
    correct_sum: jax.Array


def model_spec(run: Run, dataset: Dataset) -> ModelSpec:
    """The network of a resolved run."""
    return ModelSpec(
        name=run.model,
        num_classes=dataset.num_classes,
        image_shape=dataset.image_shape,
        mean=dataset.mean,
        std=dataset.std,
        dtype=run.dtype,
        precision=run.precision,
        norm_axis=AXIS if run.devices > 1 and run.batch_norm == "averaged" else None,
        parameterization=run.parameterization,
    )
