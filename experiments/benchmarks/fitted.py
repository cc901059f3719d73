"""`benchmark fitted`: Table 3 where the network fits its labels, which is the paper's regime.

The problem was chosen by runs of SGD alone, before SAM or ASAM saw it: the first 2,500 images of
CIFAR-10, ResNet-8, 20 epochs, no augmentation. There SGD's training accuracy was 100.00% on clean
labels and 99.96% on labels of which 40% were drawn anew, in a minute on two cores; more images cost
more and change neither. Everything else is the paper's.

SAM and ASAM train at the paper's radius and at the one that a validation split chooses, of four a
factor of two apart: the next 2,500 training images under their true labels judge runs of a seed
that the final runs do not have. The test set chooses nothing.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from experiments.benchmarks import fitted_report
from experiments.config import run_config
from experiments.config.run_config import RunConfig
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
    """The levels of label noise, and by how many runs each is judged."""

    noise: Sequence[float]
    seeds: int

    def tuning(self, noise: float) -> list[RunConfig]:
        """A run of each method at each radius, on the validation split."""
        return [
            _make(method, noise, rho=rho, seed=self.seeds, **TUNING)
            for method, radii in RADII.items()
            for rho in radii
        ]

    def final(self, noise: float, chosen: dict[str, float]) -> list[RunConfig]:
        """SGD for the same epochs and for twice as many; the others at both radii."""
        runs = []
        for seed in range(self.seeds):
            runs += [_make("sgd", noise, seed=seed, epochs=n * EPOCHS) for n in (1, 2)]
            for method, rho in chosen.items():
                own = run_config.default_rho("cifar10", method)
                runs += [_make(method, noise, seed=seed, rho=r) for r in dict.fromkeys((own, rho))]
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


def choose(records: list[dict[str, Any]]) -> dict[str, float]:
    """Each method's radius at the one level of noise of these runs, as the report has it."""
    return {method: rho for (_, method), rho in fitted_report.chosen(groups(records)).items()}
