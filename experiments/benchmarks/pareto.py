"""`benchmark pareto`: test accuracy against cost in gradients, for every form of a step.

Each form has the same number of settings to choose from. They are compared on a validation split
of the training images, by runs of other seeds; the chosen one is trained anew on all training
images, and only those runs see the test set.
"""

import dataclasses
import statistics
from collections.abc import Sequence
from typing import Any

from experiments.benchmarks import pareto_report
from experiments.config import run_config
from experiments.config.errors import ConfigError
from experiments.config.run_config import RunConfig
from experiments.config.step_forms import EXACT, STEP_FORMS
from experiments.training import runner

VALIDATION = 0.25
RADII = (0.5, 0.75, 1.0, 1.5, 2.0, 3.0)
WEIGHTS = {"look": (0.3, 0.7), "gsam": (0.1, 0.3), "wsam": (0.6, 0.8), "cosine": (0.2, 0.4)}
# What a data set's comparison is unless the command says otherwise. Both are such that SGD learns
# the wrong labels: where a small network does not even learn the right ones, as ResNet-8 under
# augmentation, there is no gain whose share a form could keep.
PROBLEMS: dict[str, dict[str, Any]] = {
    "digits": dict(model="cnn", epochs=30, label_noise=0.4, subset=None),
    "cifar10": dict(model="resnet8", epochs=20, label_noise=0.4, subset=5000, augment=False),
}


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is compared, and by how many runs."""

    problem: dict[str, Any]
    forms: Sequence[str]
    radii: Sequence[float]
    seeds: int
    tuning_seeds: int

    def candidates(self, form: str) -> list[dict[str, Any]]:
        """The settings of a form; a form with a weight has every other radius, at two weights."""
        weights = WEIGHTS.get(STEP_FORMS[form].weighs or "")
        if weights is None:
            return [dict(variant=form, rho=rho) for rho in self.radii]
        return [
            dict(variant=form, rho=rho, weight=weight)
            for rho in self.radii[::2]
            for weight in weights
        ]

    def tuning(self, candidate: dict[str, Any]) -> list[RunConfig]:
        """Runs that judge a candidate, of seeds that the final runs do not have."""
        seeds = range(self.seeds, self.seeds + self.tuning_seeds)
        return [self._make("asam", seed=s, validation=VALIDATION, **candidate) for s in seeds]

    def final(self, method: str, **settings: Any) -> list[RunConfig]:
        """Runs on all training images."""
        return [self._make(method, seed=seed, **settings) for seed in range(self.seeds)]

    def _make(self, method: str, **settings: Any) -> RunConfig:
        return run_config.make(method=method, **(self.problem | settings))


def plan(
    dataset: str, forms: Sequence[str] | None, radii: Sequence[float] | None, **given: Any
) -> Plan:
    """Fills what is left out (None) with the data set's own, and checks the names."""
    if dataset not in PROBLEMS:
        raise ConfigError(
            f"unknown dataset {dataset!r}; the known ones are: {', '.join(PROBLEMS)}."
        )
    seeds, tuning_seeds = given.pop("seeds"), given.pop("tuning_seeds")
    problem = dict(dataset=dataset) | PROBLEMS[dataset]
    problem |= {name: value for name, value in given.items() if value is not None}
    forms = list(STEP_FORMS) if forms is None else list(forms)
    for form in forms:
        if form not in STEP_FORMS:
            raise ConfigError(
                f"unknown form {form!r}; the known ones are: {', '.join(STEP_FORMS)}."
            )
    if EXACT not in forms:
        forms.insert(0, EXACT)  # what the others are measured against
    return Plan(problem, forms, radii or RADII, seeds, tuning_seeds)


def run(what: Plan, options: runner.Options) -> int:
    """Chooses and trains; returns the number of runs."""
    options = dataclasses.replace(options, kind=pareto_report.KIND)
    candidates = [c for form in what.forms for c in what.candidates(form)]
    tuning = [one for candidate in candidates for one in what.tuning(candidate)]
    epochs = what.problem["epochs"]
    plain = [*what.final("sgd"), *what.final("sgd", epochs=2 * epochs)]
    print(f"{len(candidates)} settings of {len(what.forms)} forms, chosen on a validation split.")
    records = runner.run_all(tuning, options, announce=True)
    chosen = choose(records)
    final = [one for form in what.forms for one in what.final("asam", **chosen[form])]
    runner.run_all([*plain, *final], options, announce=True)
    return len(tuning) + len(plain) + len(final)


def choose(records: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Each form's setting with the best mean accuracy on the validation split; ties: the first."""
    scores: dict[tuple[str, float, float], list[float]] = {}
    for record in records:
        key = record.get("variant", EXACT), record["rho"], record.get("weight", 0.0)
        scores.setdefault(key, []).append(record["test_accuracy_final"])
    best: dict[str, dict[str, Any]] = {}
    means = {key: statistics.mean(values) for key, values in scores.items()}
    for form, rho, weight in sorted(means, key=lambda key: means[key], reverse=True):
        best.setdefault(form, dict(variant=form, rho=rho, weight=weight))
    return best
