"""How to run, none of which changes a result: the options that commands share."""

import dataclasses
from pathlib import Path
from typing import Literal


@dataclasses.dataclass(frozen=True)
class Options:
    """Where results go, and when to stop."""

    workdir: Path = Path("runs")
    """Folder for results, pictures and checkpoints."""
    data_dir: Path | None = None
    """Folder of tensorflow_datasets; else TFDS_DATA_DIR, or its own default."""
    time_limit: float | None = None
    """Stop after so many seconds, with a checkpoint; the same command goes on."""
    checkpoint_seconds: float = 60.0
    """Seconds between two checkpoints."""
    loop: Literal["auto", "host", "scan"] = "auto"
    """host: single steps, best on a CPU. scan: an epoch in one program. auto: by the device."""


@dataclasses.dataclass(frozen=True)
class Processes:
    """Where the other processes of a run are."""

    distributed: bool = False
    """This is one of several processes that train together."""
    coordinator: str | None = None
    """HOST:PORT of process 0; TPU and SLURM are detected."""
    num_processes: int | None = None
    """How many processes there are."""
    process_id: int | None = None
    """Which of them this is, from 0."""
