"""Result files: one JSON line a finished run, appended whole, and read back with their flaws.

Runs lie in results.jsonl; the lines of figures and benchmarks name their `kind` and lie in files of
their own beside it.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Record = dict[str, Any]
RESULTS_NAME = "results.jsonl"
RUN = "run"  # the kind of a line that names none
_REQUIRED = {"run_id", "dataset", "model", "method", "test_accuracy_final", "test_accuracy_max"}


def name_of(kind: str) -> str:
    """The file that holds the lines of a kind."""
    return RESULTS_NAME if kind == RUN else f"{kind}.jsonl"


def append(workdir: Path, record: Record) -> None:
    """Adds one line to the file of its kind and waits until it is on the disk.

    A broken last line, left by a process killed while it wrote, stays where it is: the new line
    starts on a line of its own.
    """
    line = json.dumps(strict(record)) + "\n"
    path = workdir / name_of(record.get("kind", RUN))
    with path.open("a+b") as file:
        if file.tell() > 0:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                line = "\n" + line
        file.write(line.encode())
        file.flush()
        os.fsync(file.fileno())


def replace(workdir: Path, records: list[Record], name: str) -> None:
    """Writes the lines of a file anew, all or none."""
    workdir.mkdir(parents=True, exist_ok=True)
    new = workdir / f".{name}.new"
    new.write_text("".join(json.dumps(strict(record)) + "\n" for record in records))
    new.replace(workdir / name)


def read(folder: Path, kind: str = RUN) -> tuple[list[Record], list[str]]:
    """All runs of one kind below a folder, and a sentence for each line that is not a whole one.

    A run that was finished twice (in two folders, say) counts once on each kind of device, whose
    last bits differ: the first found is kept.
    """
    runs: dict[tuple[str, str], Record] = {}
    problems = []
    for where, record in _lines(folder):
        ours = record is not None and record.get("kind", RUN) == kind
        if record is None or (ours and not record.keys() >= _REQUIRED):
            problems.append(f"{where}: not a whole result line; kept, but not counted.")
        elif ours:
            runs.setdefault((record["run_id"], platform(record)), record)
    return list(runs.values()), problems


def read_kind(folder: Path, kind: str) -> list[Record]:
    """The lines of one kind (of a figure, say) below a folder."""
    return [record for _, record in _lines(folder) if record and record.get("kind") == kind]


def platform(record: Record) -> str:
    """'cpu', 'gpu' or 'tpu': where a line was measured."""
    return record.get("device", {}).get("platform", "cpu")


def _lines(folder: Path) -> Iterator[tuple[str, Record | None]]:
    """Where each line is and what it holds; None for one that is no record."""
    for path in sorted(folder.rglob("*.jsonl")):
        for number, line in enumerate(path.read_text(errors="replace").split("\n"), start=1):
            if line.strip():
                try:
                    record = json.loads(line)
                except json.JSONDecodeError:
                    record = None
                yield f"{path}:{number}", record if isinstance(record, dict) else None


def strict(record: Record) -> Record:
    """The same in strict JSON: what is not finite (a diverged loss) becomes null."""
    return json.loads(json.dumps(record), parse_constant=lambda _: None)
