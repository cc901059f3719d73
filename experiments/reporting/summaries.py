"""A part of the report, and what each part says of where its numbers come from."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from experiments.reporting import precision
from experiments.reporting.tables import Group

Picture = tuple[str, Callable[[Path], None]]  # the name of its file, and what draws it at a path


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of the report; pictures are drawn when the report is written."""

    title: str
    body: str
    pictures: tuple[Picture, ...] = ()
    gained: Sequence[list[str]] = ()  # its rows of the table that opens the report


def measured_on(found: list[Group]) -> str:
    """Data, device and versions behind some rows, as the lines have them."""
    runs = [run for group in found for run in group.runs]

    def values(get: Callable[[dict[str, Any]], str]) -> str:
        return "; ".join(sorted({get(run) for run in runs}))

    device = values(lambda r: f"{r['device']['kind']} ({r['device']['processors']} processors)")
    jax = values(lambda r: r["versions"]["jax"])
    flax = values(lambda r: r["versions"]["flax"])
    arithmetic = values(precision.in_words)
    data = values(lambda r: f"{r['dataset']} {r['dataset_fingerprint']}")
    hours = sum(group.wall_seconds for group in found) / 3600
    seconds = f"{hours:.1f} hours" if hours >= 1 else f"{hours * 60:.1f} minutes"
    # On a CPU float32 is what it says, and a table has a column for dtypes that differ.
    said = "" if arithmetic == "float32" else f" {arithmetic};"
    return (
        f"Measured on: {device}; JAX {jax}, Flax {flax};{said} data {data}; "
        f"{len(runs)} runs, {seconds} of training."
    )


def commands(found: list[Group]) -> str:
    """The commands that made some rows."""
    return commands_of(run for group in found for run in group.runs)


def commands_of(records: Iterable[dict[str, Any]]) -> str:
    """The commands that made some result lines, each once."""
    return "```bash\n" + "\n".join(dict.fromkeys(r["command"] for r in records)) + "\n```"
