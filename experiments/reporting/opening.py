"""The table that opens the report: for each problem what was gained, by what, and at what cost."""

import dataclasses
import statistics
from collections.abc import Sequence

from experiments.reporting.tables import Group, format_mean_std, markdown, paired, radius

# Training accuracy, in percent, from which on a network is said to fit its labels.
FITTED = 99.0
TITLE = "What was gained"
FOOTNOTE = (
    "Final test accuracy in percent, mean ± sample standard deviation over seeds, every radius "
    "chosen on a validation split; the sections below have runs, devices and commands. Cost counts "
    "gradients of a whole batch, in those of the base optimizer for the same epochs. ASAM minus "
    "SAM: the mean difference over seeds, with its 95% interval where there are several. Cheap: "
    "the most accurate variant of ASAM's step that costs at most 1.1. In the paper's regime the "
    f"base optimizer fits its training labels, wrong ones too: at least {FITTED:g}% of them in its "
    "last epoch. In part: not all, but more than there are right ones, so wrong ones, too. Where "
    "it does not, the network has nothing to spare for a flatter minimum, and "
    "[ASAM costs accuracy](../../docs/when_not.md)."
)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """One problem, and what was compared on it.

    Attributes:
      problem: data, network, label noise, device, in words.
      base: the runs of the base optimizer for the same epochs.
      twice: those for twice the epochs.
      sam: SAM's.
      asam: ASAM's.
      cheap: the most accurate cheap variant's, with its name and its cost.
    """

    problem: str
    base: Group
    twice: Group | None = None
    sam: Group | None = None
    asam: Group | None = None
    cheap: tuple[str, float, Group] | None = None


def regime(base: Group) -> str:
    """Whether these are the paper's circumstances, and by what one sees it."""
    value = statistics.mean(base.fit)
    right = 100 * (1 - statistics.mean(run.get("labels_changed", 0.0) for run in base.runs))
    word = "yes" if value >= FITTED else "in part" if right < value else "no"
    return f"{word} ({value:.1f}%)"


def table(outcomes: Sequence[Outcome]) -> str:
    """A row for each problem."""
    header = ["problem", "paper's regime (fits)", "base, cost 1", "base, cost 2"]
    header += ["SAM, cost 2 (rho)", "ASAM, cost 2 (rho)", "ASAM minus SAM"]
    header += ["cheap: variant, cost (rho)"]
    rows = []
    for outcome in outcomes:
        cheap, sam, asam = "-", outcome.sam, outcome.asam
        if outcome.cheap is not None:
            name, cost, group = outcome.cheap
            cheap = f"{format_mean_std(group.final)}: {name}, {cost:.3g} ({radius(group)})"
        plain = (outcome.base, outcome.twice)
        row = [outcome.problem, regime(outcome.base)]
        row += ["-" if g is None else format_mean_std(g.final) for g in plain]
        row += [
            "-" if g is None else f"{format_mean_std(g.final)} ({radius(g)})" for g in (sam, asam)
        ]
        rows.append([*row, paired(asam, sam) if sam and asam else "-", cheap])
    return markdown(header, rows)
