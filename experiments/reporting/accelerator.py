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
REMARK = "accelerator_note"  # sentences of such origin
TITLE = "On an accelerator"
# The fingerprint of the copy of CIFAR-10 whose images went through JPEG.
_JPEG = "8ed366448d73ccba"


def sections(workdir: Path, runs: list[dict[str, Any]]) -> list[Section]:
    """One part, if there is anything: accuracies, then the notes on throughput."""
    notes = result_lines.read_kind(workdir, NOTE)
    remarks = result_lines.read_kind(workdir, REMARK)
    if not runs and not notes and not remarks:
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
    body += [remark["text"] for remark in remarks]
    return [Section(TITLE, "\n\n".join(body))]


def _difference(group: Group) -> str | None:
    """Where one run on the copy stands below the paper: what is known of why."""
    entry = paper.entry(group["dataset"], group["model"], group["method"], group["label_noise"])
    if entry is None or group["dataset_fingerprint"] != _JPEG or len(group.runs) > 1:
        return None
    gap = entry[0] - group.best[0]
    if gap <= 0:
        return None
    known = [f"its images are a copy that went through JPEG ({group['dataset']} {_JPEG})"]
    if group["cutout"]:
        known.append(
            f"it trained with cutout {group['cutout']}, which the paper's tables seem to leave out"
        )
    if group["dtype"] != "float32":
        known.append(f"it computed in {group['dtype']}")
    accuracy = group["metrics"]["train_accuracy"][-1]
    return (
        f"One seed of {group['model']} reached {group.best[0]:.2f}%, {gap:.2f} points below the "
        f"paper's mean. What is known to differ: {'; '.join(known)}. How many points each makes, "
        f"this line does not say. In its last epoch it had {accuracy:.1f}% of the training images "
        f"right, as they were augmented{', which points to underfitting' if accuracy < 95 else ''}."
    )


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
