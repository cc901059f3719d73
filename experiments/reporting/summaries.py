"""A part of the report, and what each part says of where its numbers come from."""

import dataclasses
import shlex
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from experiments.config.run import LATER
from experiments.reporting.tables import Group
from experiments.training import result_lines

# Of float32 at each jax_default_matmul_precision, as jax.lax.Precision documents it.
_FLOAT32 = {
    ("gpu", "default"): "products and convolutions in TF32",
    ("gpu", "high"): "products and convolutions in TF32",
    ("tpu", "default"): "products and convolutions in bfloat16",
    ("tpu", "high"): "products and convolutions in three passes of bfloat16",
    ("tpu", "highest"): "products and convolutions in six passes of bfloat16",
}


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of the report; pictures are drawn when the report is written."""

    title: str
    body: str
    pictures: Sequence[tuple[str, Callable[[Path], None]]] = ()  # file names, and what draws there
    gained: Sequence[list[str]] = ()  # its rows of the table that opens the report


def measured_on(found: list[Group]) -> str:
    """Data, device and versions behind some rows, as the lines have them."""
    runs = [run for group in found for run in group.runs]

    def values(get: Callable[[dict[str, Any]], str]) -> str:
        return "; ".join(sorted({get(run) for run in runs}))

    flax = values(lambda r: r["versions"]["flax"])
    arithmetic = values(arithmetic_of)
    data = values(lambda r: f"{r['dataset']} {r['dataset_fingerprint']}")
    hours = sum(group.wall_seconds for group in found) / 3600
    seconds = f"{hours:.1f} hours" if hours >= 1 else f"{hours * 60:.1f} minutes"
    # On a CPU float32 is what it says, and a table has a column for dtypes that differ.
    said = "" if arithmetic == "float32" else f" {arithmetic};"
    return (
        f"Measured on: {machines(runs)}, Flax {flax};{said} data {data}; "
        f"{len(runs)} runs, {seconds} of training."
    )


def machines(lines: list[dict[str, Any]]) -> str:
    """'Intel(R) Xeon(R) (2 processors); JAX 0.10.2', of all lines."""
    devices = {f"{r['device']['kind']} ({r['device']['processors']} processors)" for r in lines}
    versions = {r["versions"]["jax"] for r in lines}
    return f"{'; '.join(sorted(devices))}; JAX {'; '.join(sorted(versions))}"


def arithmetic_of(record: dict[str, Any]) -> str:
    """'bfloat16', or 'float32 (products and convolutions in TF32)'."""
    if record["dtype"] != "float32":
        return record["dtype"]
    chosen = record.get("precision", LATER["precision"])
    words = _FLOAT32.get((result_lines.platform(record), chosen))
    return f"float32 ({words})" if words else "float32"


def bash(lines: Iterable[str]) -> str:
    """Commands as a block, each once."""
    return "\n".join(["```bash", *dict.fromkeys(lines), "```"])


def commands(workdir: Path, *all_words: Iterable[Any]) -> str:
    """The commands, of such words, by which this version makes the lines of a part in a folder."""
    called = [("python", "-m", "experiments", *words, "--workdir", workdir) for words in all_words]
    return bash(shlex.join(map(str, words)) for words in called)


def flags(record: dict[str, Any], names: Iterable[str]) -> list[Any]:
    """The words of those options that a line has values of."""
    named = [name for name in names if record.get(name) is not None]
    return [word for n in named for word in (f"--{n.replace('_', '-')}", record[n])]
