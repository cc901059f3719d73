"""What a part of the report holds: a table with what it compares, and what it was measured on."""

import dataclasses
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from experiments.reporting import opening, precision
from experiments.reporting.tables import Group, digits_table, paper_table

FOOTNOTE = (
    "Mean ± sample standard deviation over seeds. All methods train for the same epochs; a step of "
    "SGD costs one gradient, of SAM and ASAM two. The final epoch is the honest column; the best "
    "epoch is picked on the test set, as in the paper's tables."
)
NOISE_FOOTNOTE = (
    "Final test accuracy, mean ± sample standard deviation over seeds. The best rho of each sweep, "
    "in brackets, is picked on the test set, for SAM and ASAM alike: it flatters both."
)
PAPER_FOOTNOTE = (
    "Mean ± sample standard deviation over seeds. The paper's numbers are of the best epoch, which "
    "is picked on the test set; the final epoch stands beside it. SGD gets twice the epochs of SAM "
    "and ASAM, so that all methods cost the same number of gradients. Rows marked as reduced "
    "trained on fewer images or for fewer epochs than the paper: their accuracies are not the "
    "paper's to compare with, the differences between methods are."
)


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of the report; pictures are drawn when the report is written."""

    title: str
    body: str
    pictures: tuple[tuple[str, Callable[[Path], None]], ...] = ()
    outcomes: tuple[opening.Outcome, ...] = ()  # its rows of the table that opens the report


def digits_summary(found: list[Group]) -> str:
    """The table of one noise level with what it is a comparison of."""
    return f"{digits_table(found)}\n\n{FOOTNOTE}"


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


def paper_summary(found: list[Group]) -> str:
    """A table of the paper, ours beside it."""
    return f"{paper_table(found)}\n\n{PAPER_FOOTNOTE}"
