"""The table that opens the report: for each problem what was gained, by what, and at what cost."""

import dataclasses
import statistics
from collections.abc import Sequence

from experiments.reporting.mean_std import format_mean_std
from experiments.reporting.tables import Group, markdown

# Training accuracy, in percent, from which on a network is said to fit its labels.
FITTED = 99.0
TITLE = "What was gained"
FOOTNOTE = (
    "Final test accuracy in percent, mean ± sample standard deviation over seeds; the sections "
    "below have runs, devices and commands. Cost counts gradients of a whole batch, in those of "
    "the base optimizer for the same epochs. Gain: ASAM above the better of the two base columns. "
    "Cheap: the most accurate form of ASAM's step that costs at most 1.1. In the paper's regime "
    f"the base optimizer fits its training labels, wrong ones too: at least {FITTED:g}% of them in "
    "its last epoch. In part: not all, but more than there are right ones, so wrong ones, too. "
    "Where it does not, the network has nothing to spare for a flatter minimum, and "
    "[ASAM costs accuracy](../../docs/when_not.md)."
)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """One problem: its base optimizer, and what was compared with it.

    Attributes:
      problem: data, network, label noise, in words.
      radius: who chose the radii.
      base: the runs without ascents for the same epochs.
      twice: those for twice the epochs; one of the two is there.
      sam: SAM's.
      asam: ASAM's.
      cheap: the cheapest form's, with its name and its cost.
    """

    problem: str
    radius: str
    base: Group | None
    twice: Group | None = None
    sam: Group | None = None
    asam: Group | None = None
    cheap: tuple[str, float, Group] | None = None

    @property
    def plain(self) -> list[Group]:
        """The runs without ascents that there are."""
        return [group for group in (self.base, self.twice) if group is not None]


def fit(group: Group) -> float:
    """Mean training accuracy in the last epoch, in percent, on the labels as given."""
    return statistics.mean(run["metrics"]["train_accuracy"][-1] for run in group.runs)


def regime(outcome: Outcome) -> str:
    """Whether these are the paper's circumstances, and by what one sees it."""
    first = outcome.plain[0]
    value = fit(first)
    if not first.reduced:
        return f"the paper's recipe ({value:.1f}%)"
    right = 100 * (1 - statistics.mean(run.get("labels_changed", 0.0) for run in first.runs))
    word = "yes" if value >= FITTED else "in part" if right < value else "no"
    return f"{word} ({value:.1f}%)"


def table(outcomes: Sequence[Outcome]) -> str:
    """A row for each problem."""
    header = [
        "problem",
        "paper's regime (fits)",
        "base, cost 1",
        "base, cost 2",
        "SAM, cost 2 (rho)",
        "ASAM, cost 2 (rho)",
        "gain",
        "cheap: form, cost (rho)",
        "rho chosen by",
    ]
    # Two tables of the paper can share rows.
    return markdown(header, [list(row) for row in dict.fromkeys(map(_row, outcomes))])


def _row(outcome: Outcome) -> tuple[str, ...]:
    cheap = "-"
    if outcome.cheap is not None:
        name, cost, group = outcome.cheap
        cheap = f"{format_mean_std(group.final)}: {name}, {cost:.3g} ({group['rho']:g})"
    return (
        outcome.problem,
        regime(outcome),
        *("-" if g is None else format_mean_std(g.final) for g in (outcome.base, outcome.twice)),
        _with_radius(outcome.sam),
        _with_radius(outcome.asam),
        _gain(outcome),
        cheap,
        outcome.radius,
    )


def _with_radius(group: Group | None) -> str:
    return "-" if group is None else f"{format_mean_std(group.final)} ({group['rho']:g})"


def _gain(outcome: Outcome) -> str:
    if outcome.asam is None:
        return "-"
    base = max(statistics.mean(group.final) for group in outcome.plain)
    return f"{statistics.mean(outcome.asam.final) - base:+.2f}"
