"""`benchmark radius`: rules that choose ASAM's rho in training, against a sweep of constant radii.

On every problem SGD, four constant radii a factor of two apart, and each rule at each of its
targets are judged on a validation split, by a run of a seed that the final runs do not have. A
constant may be another on each problem; a rule has one target for all of them, the one that keeps
most of the constants' gain where it keeps least. Then the final runs: SGD, the chosen constant, the
constant 1, the rules.

Only the final runs see the test set.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from experiments.benchmarks import fitted, radius_report, transformer
from experiments.config import run_config
from experiments.config.errors import ConfigError
from experiments.config.run_config import RunConfig
from experiments.training import result_lines, runner

RADII = (0.5, 1.0, 2.0, 4.0)
TARGETS = {
    "rise": (0.2, 0.3, 0.4),
    "relative": (0.1, 0.2, 0.35),
    "linear": (0.15, 0.25),
    "departure": (1.3, 1.6),
}
# AdamW's best rate of those that `benchmark transformer` judges on a validation split.
VIT: dict[str, Any] = dict(dataset="cifar10", optimizer="adamw", lr=4e-3, test_every=40)
START = 1.0  # where a rule begins, and the constant that needs no choice


@dataclasses.dataclass(frozen=True)
class Problem:
    """What is trained on, and how a validation split is cut from it."""

    settings: dict[str, Any]
    tuning: dict[str, Any]
    noise: tuple[float, ...]


PROBLEMS = {
    "digits": Problem(dict(dataset="digits"), dict(validation=0.25), (0.0, 0.2, 0.4, 0.6, 0.8)),
    "cifar10": Problem(fitted.PROBLEM, fitted.TUNING, (0.0, 0.4, 0.8)),
    "vit": Problem(
        transformer.SHARED | transformer.PROBLEMS["cifar10"] | VIT, fitted.TUNING, (0.0, 0.4)
    ),
}


@dataclasses.dataclass(frozen=True)
class Plan:
    """Some problems, and by how many seeds the final runs are made."""

    problems: Sequence[str]
    seeds: int

    def __post_init__(self):
        for name in self.problems:
            if name not in PROBLEMS:
                known = ", ".join(PROBLEMS)
                raise ConfigError(f"unknown problem {name!r}; the known ones are: {known}.")

    def levels(self) -> list[tuple[Problem, float]]:
        """Each problem at each of its levels of label noise."""
        return [(PROBLEMS[n], noise) for n in self.problems for noise in PROBLEMS[n].noise]

    def tuning(self, problem: Problem, noise: float) -> list[RunConfig]:
        """SGD, the constants and the rules, on the validation split."""
        chosen: list[dict[str, Any]] = [dict(rho=rho) for rho in RADII]
        chosen += [_ruled(rule, t) for rule, targets in TARGETS.items() for t in targets]
        own: dict[str, Any] = dict(label_noise=noise, seed=self.seeds)
        shared = problem.settings | problem.tuning | own
        plain = run_config.make(method="sgd", **shared)
        return [plain, *(run_config.make(method="asam", **shared, **one) for one in chosen)]

    def final(
        self, problem: Problem, noise: float, rho: float, targets: dict[str, float]
    ) -> list[RunConfig]:
        """SGD, the chosen constant and 1, and the rules at their targets, on all images."""
        chosen: list[dict[str, Any]] = [dict(rho=r) for r in dict.fromkeys((START, rho))]
        chosen += [_ruled(rule, target) for rule, target in targets.items()]
        runs = []
        for seed in range(self.seeds):
            own: dict[str, Any] = dict(label_noise=noise, seed=seed)
            shared = problem.settings | own
            runs.append(run_config.make(method="sgd", **shared))
            runs += [run_config.make(method="asam", **shared, **one) for one in chosen]
        return runs


def _ruled(rule: str, target: float) -> dict[str, Any]:
    return dict(rho=START, radius_rule=rule, target=target)


def run(plan: Plan, options: runner.Options) -> int:
    """Chooses and trains; returns the number of runs."""
    options = dataclasses.replace(options, kind=radius_report.KIND)
    tuning = [one for level in plan.levels() for one in plan.tuning(*level)]
    runner.run_all(tuning, options, announce=True)
    # With the lines of problems that another call trained: a target is one for all.
    found = radius_report.tuned(result_lines.read(options.workdir, radius_report.KIND)[0])
    targets = radius_report.chosen_targets(found)
    final = []
    for problem, noise in plan.levels():
        key = radius_report.place(plan.tuning(problem, noise)[0].as_json())
        rho = radius_report.chosen_radius(found[key])
        final += plan.final(problem, noise, rho, targets)
    runner.run_all(final, options, announce=True)
    return len(tuning) + len(final)
