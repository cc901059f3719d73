"""RESULTS.md and its pictures, made from result lines alone.

It opens with a table: for each problem what was gained, by what, and at what cost.
"""

import statistics
from collections.abc import Mapping
from pathlib import Path

from experiments.reporting.summaries import Section
from experiments.reporting.tables import Group, format_mean_std, markdown, paired, radius

# Training accuracy, in percent, from which on a network is said to fit its labels.
FITTED = 99.0
HEADER = ["problem", "paper's regime (fits)", "base, cost 1", "base, cost 2", "SAM, cost 2 (rho)"]
HEADER += ["ASAM, cost 2 (rho)", "ASAM minus SAM", "cheap: variant, cost (rho)"]
FOOTNOTE = (
    "Final test accuracy in percent, mean ± sample standard deviation over seeds, every radius "
    "chosen on a validation split; the sections below have runs, devices and commands. Cost counts "
    "gradients of a whole batch, in those of the base optimizer for the same epochs: AdamW for the "
    "vit, SGD for all others. ASAM minus SAM: the mean difference over seeds, with its 95% "
    "interval if there are several. Authors: the authors' rule, biases unscaled, eta 0.01. Cheap: "
    "the most accurate variant of ASAM's step that costs at most 1.1. In the paper's regime the "
    f"base optimizer fits its training labels, wrong ones too: at least {FITTED:g}% of them in its "
    "last epoch. In part: not all, but more than there are right ones, so wrong ones, too. Where "
    "it does not, the network has nothing to spare for a flatter minimum, and "
    "[ASAM costs accuracy](../../docs/when_not.md)."
)
MADE = (
    "Made by `python -m experiments report` from the result lines (`*.jsonl`) beside this file; "
    "nothing in it is typed by hand. The command of a part makes its runs, less those that are "
    "stored; each line has the command that made it."
)


def regime(base: Group) -> str:
    """Whether these are the paper's circumstances, and by what one sees it."""
    value = statistics.mean(base.fit)
    right = 100 * (1 - statistics.mean(run.get("labels_changed", 0.0) for run in base.runs))
    word = "yes" if value >= FITTED else "in part" if right < value else "no"
    return f"{word} ({value:.1f}%)"


def opening_row(problem: str, of: Mapping[str, Group], cheap: str) -> list[str]:
    """What was compared on a problem: the runs of base, twice, sam, asam, as far as there are."""
    words = {role: format_mean_std(group.final) for role, group in of.items()}
    for n in {"sam", "asam"} & of.keys():
        words[n] += f" ({radius(of[n])}{', authors' * (of[n]['adapt'] == 'not_bias')})"
    cells = [words.get(role, "-") for role in ("base", "twice", "sam", "asam")]
    gain = paired(of["asam"], of["sam"]) if {"sam", "asam"} <= of.keys() else "-"
    return [problem, regime(of["base"]), *cells, gain, cheap]


def write(workdir: Path, sections: list[Section], problems: list[str]) -> Path:
    """Writes RESULTS.md and the pictures.

    Args:
      workdir: the folder that holds the lines.
      sections: what the report says, in order.
      problems: a sentence for each line that could not be read.

    Returns:
      The path of RESULTS.md.
    """
    parts = ["# Results", MADE]
    gained = [row for section in sections for row in section.gained]
    if gained:
        parts += ["## What was gained", markdown(HEADER, gained), FOOTNOTE]
    for section in sections or [Section("Nothing yet", "No result lines were found here.")]:
        parts += [f"## {section.title}", section.body]
        for picture, draw in section.pictures:
            draw(workdir / picture)
            parts.append(f"![{section.title}]({picture})")
    if problems:
        parts += ["## Lines left out", "\n".join(f"- {problem}" for problem in problems)]
    path = workdir / "RESULTS.md"
    path.write_text("\n\n".join(parts) + "\n")
    return path
