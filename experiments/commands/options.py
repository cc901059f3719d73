"""The options that the commands share, declared once."""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from experiments.commands import front
from experiments.config.errors import ConfigError

if TYPE_CHECKING:
    from experiments.training import runner

Workdir = Annotated[Path, front.Option(help="Folder for results, pictures and checkpoints.")]
DataDir = Annotated[
    Path | None,
    front.Option(
        help="Folder of tensorflow_datasets. Without it TFDS_DATA_DIR, or its own default."
    ),
]
TimeLimit = Annotated[
    float | None,
    front.Option(help="Stop after so many seconds, with a checkpoint; the same command goes on."),
]
CheckpointSeconds = Annotated[float, front.Option(help="Seconds between two checkpoints.")]
Loop = Annotated[
    str,
    front.Option(
        help="host: a loop of single steps, best on a CPU. scan: an epoch in one program, best on "
        "a GPU or TPU. auto: by the device."
    ),
]
Seeds = Annotated[int, front.Option(min=1, help="How many seeds: 0 to N - 1.")]
Epochs = Annotated[
    int | None, front.Option(help="Passes over the training images. Without it the paper's.")
]
Subset = Annotated[
    int | None, front.Option(help="Train on the first N images only; marked as reduced.")
]
Dtype = Annotated[str, front.Option(help="float32 or bfloat16, to compute in.")]
Cutout = Annotated[int, front.Option(help="Side of cutout's square, 16 in Appendix B; 0 for none.")]
Recipe = Annotated[
    str, front.Option(help="paper, or script: all that the authors' script does otherwise.")
]
Precision = Annotated[
    str | None,
    front.Option(
        help="default, high or highest, of products and convolutions; else what JAX is set to by "
        "JAX_DEFAULT_MATMUL_PRECISION. On a GPU those of float32 are TF32 below highest."
    ),
]
Noise = Annotated[
    str | None, front.Option(help="Levels of label noise such as 0,0.4; else all of the table's.")
]
Devices = Annotated[
    int | None,
    front.Option(min=1, help="Devices that share a batch; 1, or all there are if --distributed."),
]
Perturb = Annotated[
    str | None,
    front.Option(help="all: one eps for the whole batch. device: each device its own."),
]
BatchNorm = Annotated[
    str | None, front.Option(help="averaged: the whole batch's statistics. device: each its own.")
]
Names = Annotated[str | None, front.Option(help="Some only, by name, with commas between.")]

WORKDIR = Path("runs")


@dataclasses.dataclass(frozen=True)
class Running:
    """How to run, none of which changes a result: what `runner.Options` takes."""

    workdir: Workdir = WORKDIR
    data_dir: DataDir = None
    time_limit: TimeLimit = None
    checkpoint_seconds: CheckpointSeconds = 60.0
    loop: Loop = "auto"

    def options(self) -> "runner.Options":
        """The same for the runner, which knows nothing of a command line."""
        from experiments.training import runner

        return runner.Options(**vars(self))


@dataclasses.dataclass(frozen=True)
class OtherProcesses:
    """Where the other processes of a run are: what `processes.join` takes."""

    distributed: Annotated[
        bool, front.Option(help="This is one of several processes; see docs.")
    ] = False
    coordinator: Annotated[
        str | None, front.Option(help="HOST:PORT of process 0; TPU and SLURM are detected.")
    ] = None
    num_processes: Annotated[
        int | None, front.Option(min=1, help="How many processes there are.")
    ] = None
    process_id: Annotated[
        int | None, front.Option(min=0, help="Which of them this is, from 0.")
    ] = None


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """The command with an option for each field of the groups that it takes.

    A group is a parameter whose type is a dataclass of options. `front` reads a command's
    signature: here it has the fields in the group's place, and the group is made of their values.
    """
    parameters, groups = [], {}
    for parameter in inspect.signature(command).parameters.values():
        group = parameter.annotation
        if isinstance(group, type) and dataclasses.is_dataclass(group):
            fields = inspect.signature(group).parameters
            groups[parameter.name] = group, tuple(fields)
            parameters += fields.values()
        else:
            parameters.append(parameter)

    @functools.wraps(command)
    def ungrouped(**values: Any) -> None:
        for name, (group, fields) in groups.items():
            values[name] = group(**{field: values.pop(field) for field in fields})
        command(**values)

    keyword = inspect.Parameter.KEYWORD_ONLY
    signature = inspect.Signature([p.replace(kind=keyword) for p in parameters])
    ungrouped.__signature__ = signature  # pyright: ignore[reportAttributeAccessIssue]
    ungrouped.__annotations__ = {p.name: p.annotation for p in parameters}
    return ungrouped


def split(names: str | None) -> list[str] | None:
    """'a,b' as ['a', 'b']; None stays."""
    if names is None:
        return None
    return [name.strip() for name in names.split(",") if name.strip()]


def levels(text: str | None, name: str = "noise") -> list[float] | None:
    """'0,0.4' as [0.0, 0.4]; None stays."""
    names = split(text)
    if names is None:
        return None
    try:
        return [float(name) for name in names]
    except ValueError as error:
        raise ConfigError(
            f"{name}={text!r} must be numbers with commas between, such as 0,0.4."
        ) from error
