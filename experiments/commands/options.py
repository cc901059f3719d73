"""The options that the commands share, declared once."""

from pathlib import Path
from typing import Annotated

import typer

from experiments.config.errors import ConfigError

Workdir = Annotated[Path, typer.Option(help="Folder for results, pictures and checkpoints.")]
DataDir = Annotated[
    Path | None,
    typer.Option(
        help="Folder of tensorflow_datasets. Without it TFDS_DATA_DIR, or its own default."
    ),
]
TimeLimit = Annotated[
    float | None,
    typer.Option(help="Stop after so many seconds, with a checkpoint; the same command goes on."),
]
CheckpointSeconds = Annotated[float, typer.Option(help="Seconds between two checkpoints.")]
Loop = Annotated[
    str,
    typer.Option(
        help="host: a loop of single steps, best on a CPU. scan: an epoch and all seeds in one "
        "program, best on a GPU or TPU. auto: by the device."
    ),
]
Seeds = Annotated[int, typer.Option(min=1, help="How many seeds: 0 to N - 1.")]
Epochs = Annotated[
    int | None, typer.Option(help="Passes over the training images. Without it the paper's.")
]
Subset = Annotated[
    int | None, typer.Option(help="Train on the first N images only; marked as reduced.")
]
Dtype = Annotated[str, typer.Option(help="float32 or bfloat16, to compute in.")]
Noise = Annotated[
    str | None, typer.Option(help="Levels of label noise such as 0,0.4; else all of the table's.")
]
Devices = Annotated[
    int | None,
    typer.Option(min=1, help="Devices that share a batch; 1, or all there are if --distributed."),
]
Perturb = Annotated[
    str | None,
    typer.Option(help="all: one eps for the whole batch. device: each device its own."),
]
BatchNorm = Annotated[
    str | None, typer.Option(help="averaged: the whole batch's statistics. device: each its own.")
]
Distributed = Annotated[
    bool, typer.Option("--distributed", help="This is one of several processes; see docs.")
]
Coordinator = Annotated[
    str | None, typer.Option(help="HOST:PORT of process 0; TPU and SLURM are detected.")
]
NumProcesses = Annotated[int | None, typer.Option(min=1, help="How many processes there are.")]
ProcessId = Annotated[int | None, typer.Option(min=0, help="Which of them this is, from 0.")]
Names = Annotated[str | None, typer.Option(help="Some only, by name, with commas between.")]

WORKDIR = Path("runs")


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
