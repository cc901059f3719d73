"""What the report says of an accelerator, where a workdir has a CPU's lines beside its own."""

from pathlib import Path
from typing import Any

from experiments.config import paper
from experiments.reporting.precision import in_words
from experiments.reporting.summaries import (
    Section,
    commands,
    digits_summary,
    measured_on,
    paper_summary,
)
from experiments.reporting.tables import Group, groups, markdown
from experiments.training import result_lines

NOTE = "throughput_note"  # lines that no command of this project made; each says what did
TITLE = "On an accelerator"
_NOT_MEASURED = (
    "Not measured there: Tables 1 to 3 and the figures, several devices, a TPU, and which kernels "
    "an epoch's time goes to."
)
_UNKNOWN = (
    "The row is one seed, beside the mean of five. What is known to differ: its images are a copy "
    "that was compressed as JPEG on the way ({data}); it trained with cutout {cutout}, which the "
    "paper's tables seem to leave out; and it computed in {dtype}. How much of the difference of "
    "{gap:.2f} points each of them makes, these lines do not say."
)
# The fingerprint of the copy of CIFAR-10 whose images went through JPEG.
_JPEG = "8ed366448d73ccba"


def sections(workdir: Path, runs: list[dict[str, Any]]) -> list[Section]:
    """One part, if there is anything: accuracies, then the notes on throughput."""
    notes = result_lines.read_kind(workdir, NOTE)
    if not runs and not notes:
        return []
    found = groups(runs)
    body = []
    digits = [g for g in found if g["dataset"] == "digits"]
    for noise in sorted({g["label_noise"] for g in digits}):
        rows = [g for g in digits if g["label_noise"] == noise]
        body += [f"Digits, {100 * noise:g}% label noise:", digits_summary(rows)]
        body += [measured_on(rows), commands(rows)]
    others = [g for g in found if g["dataset"] != "digits"]
    if others:
        body += ["CIFAR, beside the paper:", paper_summary(others)]
        body += [known for group in others if (known := _difference(group))]
        body += [measured_on(others), commands(others)]
    if notes:
        body += ["Throughput of the training loop:", throughput(notes), _origin(notes)]
    return [Section(TITLE, "\n\n".join([*body, _NOT_MEASURED]))]


def _difference(group: Group) -> str | None:
    """Where one run on the copy stands below the paper: what is known of why."""
    entry = paper.entry(group["dataset"], group["model"], group["method"], group["label_noise"])
    if entry is None or group["dataset_fingerprint"] != _JPEG or len(group.runs) > 1:
        return None
    gap = entry[0] - group.best[0]
    data = f"{group['dataset']} {_JPEG}"
    return _UNKNOWN.format(data=data, cutout=group["cutout"], dtype=group["dtype"], gap=gap)


def throughput(notes: list[dict[str, Any]]) -> str:
    """A row a note: what stepped, in which arithmetic, and how fast."""
    rows = [
        [
            note["name"],
            note["step"],
            in_words(note),
            str(note["seeds"]),
            note["flags"] or "-",
            f"{note['ms_step_seed']:.2f}",
            f"{note['images_s']:,}",
            str(note["beside"]),
        ]
        for note in notes
    ]
    header = ["note", "step", "arithmetic", "seeds at once", "XLA flags", "ms a step and seed"]
    return markdown([*header, "images a second", "programs compiling beside it"], rows)


def _origin(notes: list[dict[str, Any]]) -> str:
    return " ".join(dict.fromkeys(note["origin"] for note in notes))
