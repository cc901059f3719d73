"""What a study is, and how it runs: settings tuned on a validation split, finals on the test set.

Tuning runs have seeds that the final runs do not have, and held-out training images under their
true labels judge them. Each run draws a subset and label noise of its own. The test set chooses
nothing.
"""

import dataclasses
import itertools
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax

from experiments.config.errors import ConfigError
from experiments.config.registry import collect
from experiments.config.run import FIELDS, Run, one_of
from experiments.reporting.opening import FITTED
from experiments.reporting.tables import Record, setting
from experiments.training import result_lines, runner
from experiments.training.resolve import resolve

Settings = Mapping[str, Any]
LEAST_GAIN = 1.0  # points, below which a share of a gain is noise
_SEEDS = frozenset({"seed", "data_seed", "noise_seed", "test_every", "devices", "precision"})


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
        over the reference where it keeps least.
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
    """

    name: str
    settings: Settings
    tuning: Settings
    origin: str | None = None


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

    def problem(self, name: str) -> Problem:
        return next(one for one in self.problems if one.name == name)

    def arm(self, name: str) -> Arm:
        return next(one for one in self.arms if one.name == name)

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


# (problem, arm) -> the chosen values of the arm's grid
Choices = dict[tuple[str, str], dict[str, Any]]


def study(name: str) -> Study:
    """The study of that name."""
    found = collect("experiments.studies", "STUDIES")
    one_of("study", name, found)
    return found[name]


def run(what: Study, options: runner.Options, whole: Study | None = None) -> None:
    """Tunes and trains what is not finished; `whole` is the study of which `what` is a part."""

    def choices() -> Choices:
        # With the lines of problems that another call trained: a joint choice is one for all.
        lines = result_lines.read(options.workdir, what.kind)[0]
        here = jax.default_backend()
        lines = [one for one in lines if what.wide or result_lines.platform(one) == here]
        return choose(whole or what, lines)

    first = dataclasses.replace(what, arms=tuple(arm for arm in what.arms if not arm.base))
    runner.run_all(tuning(first, {}), options, kind=what.kind)
    if first != what:
        runner.run_all(tuning(what, choices()), options, kind=what.kind)
    runner.run_all(finals(what, choices()), options, kind=what.kind)


def settings_of(what: Study, problem: Problem, arm: Arm, choices: Choices) -> dict[str, Any]:
    """Fields of the arm's runs on a problem, without its own choice."""
    taken = choices.get((problem.name, arm.base), {}) if arm.base else {}
    return {**problem.settings, **arm.settings, **taken}


def tuning(what: Study, choices: Choices) -> list[Run]:
    """Every candidate of every arm on the validation splits; also the baseline of joint choices."""
    judged = {arm.name for arm in what.arms if arm.grid}
    judged |= {what.references[0]} if any(arm.joint for arm in what.arms) else set()
    return [
        _run({**settings_of(what, problem, arm, choices), **problem.tuning, **one}, arm, seed)
        for problem, arm in itertools.product(what.problems, what.arms)
        if arm.name in judged and not (arm.origin and problem.origin)
        for one in arm.candidates()
        for seed in range(what.seeds, what.seeds + what.tuning_seeds)
    ]


def finals(what: Study, choices: Choices) -> list[Run]:
    """Every arm at its choice, seed by seed."""
    return [
        _run(settings_of(what, problem, arm, choices) | chosen(choices, problem, arm), arm, seed)
        for seed in range(what.seeds)
        for problem, arm in itertools.product(what.problems, what.arms)
    ]


def chosen(choices: Choices, problem: Problem, arm: Arm) -> dict[str, Any]:
    """The arm's own choice on a problem."""
    if not arm.grid:
        return {}
    if (problem.name, arm.name) not in choices:
        raise ConfigError(f"no runs have judged {arm.name!r} on {problem.name!r} yet.")
    return choices[problem.name, arm.name]


def _run(settings: dict[str, Any], arm: Arm, seed: int) -> Run:
    run = resolve(Run(**settings, seed=seed, data_seed=seed))
    epochs = run.epochs * arm.epochs
    return dataclasses.replace(run, epochs=epochs, test_every=epochs)


def matching(
    what: Study, problem: Problem, arm: Arm, choices: Choices, lines: list[Record], tuning: bool
) -> list[Record]:
    """The lines of an arm on a problem, at whatever the arm chooses from.

    A line belongs to an arm where all fields agree but the seeds and those of the grid; so older
    lines are found, too. Where some drew their own data, those alone count.
    """
    settings = settings_of(what, problem, arm, choices) | dict(problem.tuning if tuning else {})
    wanted = _run(settings | arm.candidates()[0], arm, 0).as_json()
    names = [n for n in FIELDS if n not in _SEEDS and n not in arm.grid]
    found = [line for line in lines if all(setting(line, n) == wanted[n] for n in names)]
    own = [line for line in found if setting(line, "own_draw")]
    return own or found


def choose(what: Study, lines: list[Record]) -> Choices:
    """The best candidate of every arm on every problem, as far as there are lines; ties: the first.

    The same function chooses for the final runs and for the report.
    """
    held_out = [line for line in lines if line.get("validation")]
    choices: Choices = {}
    scores: dict[tuple[str, str], dict[tuple, float]] = {}
    for arm, problem in itertools.product(what.arms, what.problems):
        at = what.problem(problem.origin) if arm.origin and problem.origin else problem
        if arm.base and (at.name, arm.base) not in choices:
            continue
        found: dict[tuple, list[Record]] = {}
        for line in matching(what, at, arm, choices, held_out, tuning=True):
            found.setdefault(tuple(line[name] for name in arm.grid), []).append(line)
        if not found:
            continue
        means = {key: statistics.mean(map(_score, runs)) for key, runs in sorted(found.items())}
        scores[problem.name, arm.name] = means
        if arm.fits:
            fitting = [key for key, runs in found.items() if all(_fit(r) >= FITTED for r in runs)]
            means = {key: means[key] for key in sorted(fitting or found)}
        best = max(means, key=lambda key: means[key])
        choices[problem.name, arm.name] = dict(zip(arm.grid, best, strict=True))
    for arm in what.arms:
        if arm.joint:
            choices |= _jointly(what, arm, scores)
    return choices


def _jointly(what: Study, arm: Arm, scores) -> Choices:
    """The candidate that keeps most of the best arm's gain where it keeps least."""
    kept: dict[tuple, list[float]] = {}
    judged = 0
    for problem in what.problems:
        means = scores.get((problem.name, arm.name), {})
        plain = scores.get((problem.name, what.references[0]), {}).get((), None)
        rivals = [scores.get((problem.name, one.name), {}) for one in what.arms if not one.joint]
        best = max((value for rival in rivals for value in rival.values()), default=None)
        if plain is None or best is None or best - plain < LEAST_GAIN or not means:
            continue
        judged += 1
        for key, value in means.items():
            kept.setdefault(key, []).append((value - plain) / (best - plain))
    whole = {key: min(shares) for key, shares in kept.items() if len(shares) == judged}
    if not whole:
        return {}
    values = dict(zip(arm.grid, max(whole, key=lambda key: whole[key]), strict=True))
    return {(problem.name, arm.name): values for problem in what.problems}


def _score(line: Record) -> float:
    return line["test_accuracy_final"]


def _fit(line: Record) -> float:
    return line["metrics"]["train_accuracy"][-1]
