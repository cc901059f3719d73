"""What the figures share: lines of their own, and a part of the report and a picture from them."""

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from experiments.config.run import Run
from experiments.reporting.summaries import Section, commands, flags, machines
from experiments.reporting.tables import Record, grouped
from experiments.training import provenance, result_lines
from experiments.training.runner import workdir_lock


@dataclasses.dataclass(frozen=True)
class Figure:
    """One figure, made from result lines alone.

    Attributes:
      kind: of its lines; their file and the picture are named so.
      title: of its part of the report.
      text: what the report says of some lines.
      draw: makes their picture at a path.
      keys: what tells several experiments apart, each with a part and a picture of its own.
      runs: whether its lines are those of runs.
    """

    kind: str
    title: str
    text: Callable[[list[Record]], str]
    draw: Callable[[list[Record], Path], None]
    keys: tuple[str, ...] = ()
    runs: bool = False

    def write(self, workdir: Path, records: list[Record]) -> list[Record]:
        """Writes all lines anew."""
        lines = [stamped(self.kind, record) for record in records]
        with workdir_lock(workdir):
            result_lines.replace(workdir, lines, result_lines.name_of(self.kind))
        return lines

    def finish(self, workdir: Path, lines: list[Record]) -> None:
        """Draws the lines of a command and prints what is said of them."""
        self.draw(lines, workdir / f"{self.kind}.png")
        print(self.text(lines))
        print(f"Result lines: {workdir / result_lines.name_of(self.kind)}; the picture is beside.")

    def sections(self, workdir: Path) -> list[Section]:
        """A part of the report for each experiment that there are lines for."""
        if self.runs:
            lines, _ = result_lines.read(workdir, self.kind)
        else:
            lines = result_lines.read_kind(workdir, self.kind)

        def place(line: Record) -> tuple:
            values = line.get("run", {}) | line
            return tuple(values[name] for name in self.keys)

        experiments, made = grouped(lines, place), []
        for key, found in experiments.items():
            several = [*map(str, key)] if len(experiments) > 1 else []
            picture = f"{'_'.join([self.kind, *several])}.png"
            title = ", ".join([self.title, *map(str, key[:2])])
            words = [self.kind, *flags(dict(zip(self.keys, key, strict=True)), self.keys)]
            body = [self.text(found), f"Measured on: {machines(found)}.", commands(workdir, words)]
            draw = partial(self.draw, found)
            made.append(Section(title, "\n\n".join(body), ((picture, draw),)))
        return made


def for_data(shared: Run, usual: Run, paper: dict[str, Any]) -> Run:
    """The run with the paper's values where its data are not the usual and nothing was said."""
    if shared.dataset == usual.dataset:
        return shared
    unsaid = [name for name in paper if getattr(shared, name) == getattr(usual, name)]
    return dataclasses.replace(shared, **{name: paper[name] for name in unsaid})


def stamped(kind: str, record: Record) -> Record:
    """A line of one kind, with the command, the versions and the device that made it."""
    return {"kind": kind, **record, **provenance.stamp()}
