"""Result files: one JSON line a finished run, appended whole, and read back with their flaws."""

import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np

RESULTS_NAME = "results.jsonl"
_REQUIRED = ("run_id", "dataset", "model", "method", "test_accuracy_final", "test_accuracy_max")


def append(workdir: Path, record: dict[str, Any]) -> None:
    """Adds one line and waits until it is on the disk.

    A broken last line, left by a process killed while it wrote, stays where it is: the new line
    starts on a line of its own.
    """
    path = workdir / RESULTS_NAME
    line = json.dumps(strict(record), allow_nan=False) + "\n"
    with path.open("a+b") as file:
        if file.tell() > 0:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                line = "\n" + line
        file.write(line.encode())
        file.flush()
        os.fsync(file.fileno())


def read(folder: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """All result lines below a folder, and a sentence for each line that is not one.

    A run that was finished twice (in two folders, say) counts once: the first found is kept.
    """
    records: dict[str, dict[str, Any]] = {}
    problems = []
    for path in sorted(folder.rglob("*.jsonl")):
        lines = path.read_text(errors="replace").split("\n")
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            record = _parse(line)
            if record is None:
                problems.append(f"{path}:{number}: not a whole result line; kept, but not counted.")
            else:
                records.setdefault(record["run_id"], record)
    return list(records.values()), problems


def _parse(line: str) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except json.JSONDecodeError:
        return None
    whole = isinstance(record, dict) and all(name in record for name in _REQUIRED)
    return record if whole else None


def strict(value: Any) -> Any:
    """The same value in strict JSON: what is not finite (a diverged loss) becomes null."""
    if isinstance(value, dict):
        return {key: strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [strict(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def mean_std(values: list[float]) -> tuple[float, float | None]:
    """Mean and sample standard deviation (None for a single value)."""
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None


def format_mean_std(values: list[float]) -> str:
    """'92.94 ± 0.31', or '92.94' for a single value."""
    mean, std = mean_std(values)
    return f"{mean:.2f}" if std is None else f"{mean:.2f} ± {std:.2f}"
