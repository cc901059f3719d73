"""Runs a study: settings tuned on a validation split, finals on the test set.

Tuning runs have seeds that the final runs do not have, and held-out training images under their
true labels judge them. Each run draws a subset and label noise of its own. The test set chooses
nothing.
"""

import dataclasses
import itertools
from typing import Any

import jax

from experiments.config.errors import ConfigError
from experiments.config.run import FIELDS, Run
from experiments.reporting.report import FITTED
from experiments.reporting.tables import Group, Record, setting
from experiments.studies.study import Arm, Problem, Study
from experiments.training import result_lines, runner
from experiments.training.resolve import resolve

LEAST_GAIN = 1.0  # points, below which a share of a gain is noise
# What a line of an arm may differ in.
_FREE = frozenset({"seed", "data_seed", "noise_seed", "test_every", "devices", "precision"})
# (problem, arm) -> the chosen values of the arm's grid
Choices = dict[tuple[str, str], dict[str, Any]]


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
        if problem.judges or not arm.joint
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
    """The lines of an arm on a problem: the final ones, or all that its choice is made from.

    A line is an arm's where all fields agree but the seeds, and in tuning those of the grid; so
    older lines are found, too. Where some drew their own data, those alone count.
    """
    first = {**problem.tuning, **arm.candidates()[0]}
    settings = settings_of(what, problem, arm, choices)
    settings |= first if tuning else chosen(choices, problem, arm)
    wanted = _run(settings, arm, 0).as_json()
    names = [n for n in FIELDS if n not in _FREE and not (tuning and n in arm.grid)]
    found = [line for line in lines if all(setting(line, n) == wanted[n] for n in names)]
    own = [line for line in found if setting(line, "own_draw")]
    return own or found


def choose(what: Study, lines: list[Record]) -> Choices:
    """The best candidate of every arm on every problem, as far as there are lines; ties: the first.

    The same function chooses for the final runs and for the report.
    """
    choices: Choices = {}
    scores: dict[tuple[str, str], dict[tuple, float]] = {}
    for arm, problem in itertools.product(what.arms, what.problems):
        at = what.judging(problem, arm)
        if arm.base and (at.name, arm.base) not in choices:
            continue
        found: dict[tuple, list[Record]] = {}
        for line in matching(what, at, arm, choices, lines, tuning=True):
            found.setdefault(tuple(line[name] for name in arm.grid), []).append(line)
        if not found:
            continue
        judged = {key: Group(tuple(runs)) for key, runs in sorted(found.items())}
        means = {key: group.mean for key, group in judged.items()}
        scores[problem.name, arm.name] = means
        if arm.fits:
            fitting = [key for key, group in judged.items() if min(group.fit) >= FITTED]
            means = {key: means[key] for key in fitting or judged}
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
    for problem in (one for one in what.problems if one.judges):
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
