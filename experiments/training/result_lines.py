"""Result files: one JSON line a finished run, appended whole, and read back with their flaws.

Runs lie in results.jsonl; the lines of figures and benchmarks name their `kind` and lie in files of
their own beside it.
"""

import json
import math
import os
from pathlib import Path
from typing import Any

Record = dict[str, Any]
RESULTS_NAME = "results.jsonl"
RUN = "run"  # the kind of a line that names none
_REQUIRED = ("run_id", "dataset", "model", "method", "test_accuracy_final", "test_accuracy_max")


def name_of(kind: str) -> str:
    """The file that holds the lines of a kind."""
    return RESULTS_NAME if kind == RUN else f"{kind}.jsonl"


def append(workdir: Path, record: dict[str, Any]) -> None:
    """Adds one line to the file of its kind and waits until it is on the disk.

    A broken last line, left by a process killed while it wrote, stays where it is: the new line
    starts on a line of its own.
    """
    line = json.dumps(strict(record), allow_nan=False) + "\n"
    path = workdir / name_of(record.get("kind", RUN))
    with path.open("a+b") as file:
        if file.tell() > 0:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                line = "\n" + line
        file.write(line.encode())
        file.flush()
        os.fsync(file.fileno())


def replace(workdir: Path, records: list[dict[str, Any]], name: str) -> None:
    """Writes the lines of a file anew, all or none."""
    workdir.mkdir(parents=True, exist_ok=True)
    new = workdir / f".{name}.new"
    lines = [json.dumps(strict(record), allow_nan=False) + "\n" for record in records]
    new.write_text("".join(lines))
    new.replace(workdir / name)


def read(folder: Path, kind: str = RUN) -> tuple[list[dict[str, Any]], list[str]]:
    """All runs of one kind below a folder, and a sentence for each line that is not a whole one.

    A run that was finished twice (in two folders, say) counts once on each kind of device, whose
    last bits differ: the first found is kept.
    """
    records, problems = _lines(folder)
    runs: dict[tuple[str, str], dict[str, Any]] = {}
    for where, record in records:
        if record.get("kind", RUN) != kind:
            continue
        if all(name in record for name in _REQUIRED):
            runs.setdefault((record["run_id"], platform(record)), record)
        else:
            problems.append(_flaw(where))
    return list(runs.values()), problems


def read_kind(folder: Path, kind: str) -> list[dict[str, Any]]:
    """The lines of one kind (of a figure, say) below a folder."""
    return [record for _, record in _lines(folder)[0] if record.get("kind") == kind]


def platform(record: dict[str, Any]) -> str:
    """'cpu', 'gpu' or 'tpu': where a line was measured."""
    return record.get("device", {}).get("platform", "cpu")


def _lines(folder: Path) -> tuple[list[tuple[str, dict[str, Any]]], list[str]]:
    records, problems = [], []
    for path in sorted(folder.rglob("*.jsonl")):
        for number, line in enumerate(path.read_text(errors="replace").split("\n"), start=1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except json.JSONDecodeError:
                record = None
            where = f"{path}:{number}"
            if isinstance(record, dict):
                records.append((where, record))
            else:
                problems.append(_flaw(where))
    return records, problems


def _flaw(where: str) -> str:
    return f"{where}: not a whole result line; kept, but not counted."


def strict(value: Any) -> Any:
    """The same value in strict JSON: what is not finite (a diverged loss) becomes null."""
    if isinstance(value, dict):
        return {key: strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [strict(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
