"""What a study is, as data; `engine.py` runs it and `report.py` says what came of it."""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from experiments.config.registry import collect
from experiments.config.run import one_of

Settings = Mapping[str, Any]
AUTHORS_RULE = " ASAM is by the authors' rule: biases unscaled, eta 0.01."  # of a study's question


@dataclasses.dataclass(frozen=True)
class Arm:
    """A row of a study.

    Attributes:
      name: what the row is called.
      settings: fields of `Run` that make it.
      grid: fields that the validation split chooses, and what each may be.
      base: the arm whose choice this one takes over first, such as its learning rate.
      origin: whether the choice is made on the problem's origin and carried over.
      joint: whether one choice serves all problems: the one that keeps most of the best arm's gain
        over the reference where it keeps least, among the problems that judge.
      fits: whether settings at which training fits the labels come before all others.
      epochs: times the problem's epochs.
      role: what the row is in the table that opens the report: base, twice, sam, asam or cheap.
    """

    name: str
    settings: Settings
    grid: Mapping[str, Sequence[Any]] = dataclasses.field(default_factory=dict)
    base: str | None = None
    origin: bool = False
    joint: bool = False
    fits: bool = False
    epochs: int = 1
    role: str = ""

    def candidates(self) -> list[dict[str, Any]]:
        """Every combination of the grid; one without anything where there is no grid."""
        return [
            dict(zip(self.grid, v, strict=True)) for v in itertools.product(*self.grid.values())
        ]


@dataclasses.dataclass(frozen=True)
class Problem:
    """What is trained on.

    Attributes:
      name: of the report's part and of the picture's file.
      settings: fields of `Run`.
      tuning: those that cut the validation split.
      origin: the problem on which choices are made that are carried over to this one.
      judges: whether joint choices are made on it.
    """

    name: str
    settings: Settings
    tuning: Settings
    origin: str | None = None
    judges: bool = False


@dataclasses.dataclass(frozen=True)
class Study:
    """What is asked, as data.

    Attributes:
      title: of the report's part.
      question: what the report says before the tables.
      problems: what is trained on.
      arms: the rows, those that others take over from before them.
      references: arms that every row is compared with, seed by seed; the first is the baseline.
      share: two arms between whose means each row's gain is said as a share, if any.
      seeds: of the final runs; each tuning run has one after these.
      tuning_seeds: how many judge a candidate.
      notes: sentences made from the analysed rows.
      wide: whether the report has one table, problems by arms, and not one for each problem.
    """

    name: str
    title: str
    question: str
    problems: tuple[Problem, ...]
    arms: tuple[Arm, ...]
    references: tuple[str, ...]
    share: tuple[str, str] | None = None
    seeds: int = 5
    tuning_seeds: int = 2
    notes: Callable[[Any], list[str]] | None = None
    wide: bool = False

    @property
    def kind(self) -> str:
        """Of its result lines."""
        return f"{self.name}_run"

    def judging(self, problem: Problem, arm: Arm) -> Problem:
        """The problem on which the arm's choice is made."""
        name = problem.origin if arm.origin and problem.origin else problem.name
        return next(one for one in self.problems if one.name == name)

    def only(self, problems: Iterable[str], arms: Iterable[str]) -> "Study":
        """Some problems and arms, by name, with those that they take choices over from."""
        for what, wanted, known in (
            ("problem", problems, [one.name for one in self.problems]),
            ("arm", arms, [one.name for one in self.arms]),
        ):
            for name in wanted:
                one_of(what, name, known)
        names = set(problems) or {one.name for one in self.problems}
        names |= {one.origin for one in self.problems if one.name in names and one.origin}
        rows = set(arms) or {one.name for one in self.arms}
        rows |= {one.base for one in self.arms if one.name in rows and one.base}
        rows |= set(self.references) if arms else set()
        return dataclasses.replace(
            self,
            problems=tuple(one for one in self.problems if one.name in names),
            arms=tuple(one for one in self.arms if one.name in rows),
        )


def study(name: str) -> Study:
    """The study of that name."""
    found = collect("experiments.studies", "STUDIES")
    one_of("study", name, found)
    return found[name]
