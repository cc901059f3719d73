"""`benchmark fitted`: Table 3 where the network fits its labels, which is the paper's regime.

The problem was chosen by runs of SGD alone, before SAM or ASAM saw it: the first 2,500 images of
CIFAR-10, ResNet-8, 20 epochs, no augmentation. There SGD's training accuracy was 100.00% on clean
labels and 99.96% on labels of which 40% were drawn anew, in a minute on two cores; more images cost
more and change neither. Everything else is the paper's.

SAM and ASAM train at the paper's radius and at the one that a validation split chooses, of four a
factor of two apart: the next 2,500 training images under their true labels judge runs of seeds
that the final runs do not have. Cheaper forms of ASAM's step, where they are asked for, choose from
the same four in the same way. The test set chooses nothing.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from experiments.benchmarks import fitted_report
from experiments.config import run_config
from experiments.config.defaults import default_rho
from experiments.config.errors import ConfigError
from experiments.config.run_config import RunConfig
from experiments.config.step_forms import EXACT, STEP_FORMS
from experiments.reporting.tables import groups
from experiments.training import runner

EPOCHS = 20
PROBLEM: dict[str, Any] = dict(
    dataset="cifar10",
    model="resnet8",
    subset=2500,
    augment=False,
    epochs=EPOCHS,
    test_every=EPOCHS,
)
TUNING = dict(subset=5000, validation=0.5)
RADII = {"sam": (0.05, 0.1, 0.2, 0.4), "asam": (0.25, 0.5, 1.0, 2.0)}


@dataclasses.dataclass(frozen=True)
class Plan:
    """The levels of label noise, the forms of a step, and by how many runs each is judged."""

    noise: Sequence[float]
    seeds: int
    tuning_seeds: int = 1
    forms: Sequence[str] = ()  # of ASAM, besides the exact one

    def __post_init__(self):
        for form in self.forms:
            if form == EXACT or form not in STEP_FORMS or STEP_FORMS[form].weighs:
                known = ", ".join(n for n, f in STEP_FORMS.items() if n != EXACT and not f.weighs)
                raise ConfigError(
                    f"forms: {form!r} is not a form that a radius alone sets; those are: {known}."
                )

    def rows(self) -> list[tuple[str, str]]:
        """What has a radius to choose: method and form."""
        return [("sam", EXACT), ("asam", EXACT), *(("asam", form) for form in self.forms)]

    def tuning(self, noise: float) -> list[RunConfig]:
        """Runs of each row at each radius, on the validation split."""
        return [
            _make(method, noise, variant=form, rho=rho, seed=seed, **TUNING)
            for method, form in self.rows()
            for rho in RADII[method]
            for seed in range(self.seeds, self.seeds + self.tuning_seeds)
        ]

    def final(self, noise: float, chosen: dict[tuple[str, str], float]) -> list[RunConfig]:
        """SGD for the same epochs and for twice as many; exact SAM and ASAM at both radii."""
        runs = []
        for seed in range(self.seeds):
            runs += [_make("sgd", noise, seed=seed, epochs=n * EPOCHS) for n in (1, 2)]
            for (method, form), rho in chosen.items():
                own = [default_rho("cifar10", method)] if form == EXACT else []
                runs += [
                    _make(method, noise, variant=form, seed=seed, rho=r)
                    for r in dict.fromkeys((*own, rho))
                ]
        return runs


def _make(method: str, noise: float, **settings: Any) -> RunConfig:
    return run_config.make(method=method, label_noise=noise, **(PROBLEM | settings))


def run(plan: Plan, options: runner.Options) -> int:
    """Level by level, chooses and trains; returns the number of runs."""
    options = dataclasses.replace(options, kind=fitted_report.KIND)
    count = 0
    for noise in plan.noise:
        tuning = plan.tuning(noise)
        final = plan.final(noise, choose(runner.run_all(tuning, options, announce=True)))
        runner.run_all(final, options, announce=True)
        count += len(tuning) + len(final)
    return count


def choose(records: list[dict[str, Any]]) -> dict[tuple[str, str], float]:
    """The radius of each method and form at the one level of these runs, as the report has it."""
    found = fitted_report.chosen(groups(records))
    return {(method, form): rho for (_, method, form), rho in found.items()}
