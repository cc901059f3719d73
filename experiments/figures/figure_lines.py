"""The result lines of a figure: a file of their own in the workdir, stamped with their origin."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from experiments.config.run import Run
from experiments.reporting.summaries import Section, commands_of
from experiments.training import provenance, result_lines
from experiments.training.runner import workdir_lock

Record = dict[str, Any]


def for_data(shared: Run, usual: Run, paper: dict[str, Any]) -> Run:
    """The run with the paper's values where its data are not the usual and nothing was said."""
    if shared.dataset == usual.dataset:
        return shared
    unsaid = [name for name in paper if getattr(shared, name) == getattr(usual, name)]
    return dataclasses.replace(shared, **{name: paper[name] for name in unsaid})


def stamped(kind: str, record: Record) -> Record:
    """A line of one kind, with the command, the versions and the device that made it."""
    return {"kind": kind, **record, **provenance.stamp()}


def write(workdir: Path, kind: str, records: list[Record]) -> list[Record]:
    """Writes all lines of a figure anew."""
    lines = [stamped(kind, record) for record in records]
    with workdir_lock(workdir):
        result_lines.replace(workdir, lines, result_lines.name_of(kind))
    return lines


def origin(lines: list[Record]) -> str:
    """Device, versions and commands behind some lines, for the report."""
    devices = {f"{r['device']['kind']} ({r['device']['processors']} processors)" for r in lines}
    versions = {r["versions"]["jax"] for r in lines}
    return (
        f"Measured on: {'; '.join(sorted(devices))}; JAX {'; '.join(sorted(versions))}.\n\n"
        f"{commands_of(lines)}"
    )


def section(
    title: str, text: str, lines: list[Record], picture: str, draw: Callable[[Path], None]
) -> Section:
    """A paragraph of the report with its origin and its picture."""
    return Section(title, f"{text}\n\n{origin(lines)}", ((picture, draw),))
