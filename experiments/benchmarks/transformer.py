"""`benchmark transformer`: SAM and ASAM on AdamW and on Muon, which train a small transformer.

The first 973 of the digits, and the first 2,500 images of CIFAR-10 without augmentation, with clean
labels and with 40% of them drawn anew. The learning rate rises for a tenth of the steps and falls
by the cosine; decay and momentum are the optimizers' own.

The epochs were chosen by AdamW alone, on the images that the choices below are made by: at a
learning rate of 2e-3 it fitted CIFAR-10's clean labels in 25 epochs of 40 (training accuracy of
99.9%), at 1e-3 the digits' noisy ones in 40 of 60 (99.7%). All of it is meant for an accelerator,
where an epoch is one program; on two cores `--dataset digits` is what there is time for.

Every choice is made by a seed that the final runs do not have, on training images behind those that
all runs train on, under their true labels. First comes each optimizer's learning rate, by runs of
it alone on clean labels, before SAM or ASAM saw the problem: the best of those that fit the labels,
which is the paper's regime. Then, at that rate, the radius for each level of noise. The test set
chooses nothing.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from experiments.benchmarks import transformer_report
from experiments.config import run_config
from experiments.config.errors import ConfigError
from experiments.config.run_config import RunConfig
from experiments.reporting.opening import FITTED
from experiments.reporting.tables import groups
from experiments.training import runner

PROBLEMS: dict[str, dict[str, Any]] = {
    "digits": dict(epochs=40, subset=973),
    "cifar10": dict(epochs=40, subset=2500, augment=False),
}
SHARED: dict[str, Any] = dict(model="vit", warmup=0.1)
# The same images to train on, so the same program; the other quarter of the digits judges, and the
# next 2,500 images of CIFAR-10.
TUNING: dict[str, dict[str, Any]] = {
    "digits": dict(subset=None, validation=0.25),
    "cifar10": dict(subset=5000, validation=0.5),
}
RATES = (2.5e-4, 5e-4, 1e-3, 2e-3, 4e-3)
RADII: dict[tuple[str, str], Sequence[float]] = {
    ("adamw", "sam"): (0.05, 0.1, 0.2, 0.4, 0.8),
    ("adamw", "asam"): (0.25, 0.5, 1.0, 2.0, 4.0),
    ("muon", "asam"): (0.25, 0.5, 1.0, 2.0, 4.0),
}
NOISE = (0.0, 0.4)


@dataclasses.dataclass(frozen=True)
class Plan:
    """The problems and the levels of label noise, and by how many runs each is judged."""

    datasets: Sequence[str]
    noise: Sequence[float]
    seeds: int

    def __post_init__(self):
        for name in self.datasets:
            if name not in PROBLEMS:
                raise ConfigError(
                    f"unknown dataset {name!r}; the known ones are: {', '.join(PROBLEMS)}."
                )

    def rates(self, dataset: str) -> list[RunConfig]:
        """A run of each optimizer alone at each learning rate, on clean labels."""
        return [
            self._tuning(dataset, "sgd", optimizer=optimizer, lr=lr)
            for optimizer in transformer_report.OPTIMIZERS
            for lr in RATES
        ]

    def radii(self, dataset: str, noise: float, lr: dict[str, float]) -> list[RunConfig]:
        """A run of each method at each radius."""
        return [
            self._tuning(dataset, method, optimizer=name, lr=lr[name], label_noise=noise, rho=rho)
            for (name, method), radii in RADII.items()
            for rho in radii
        ]

    def final(
        self,
        dataset: str,
        noise: float,
        lr: dict[str, float],
        rho: dict[tuple[str, str], float],
    ) -> list[RunConfig]:
        """Each optimizer alone for the same epochs and for twice as many, then the others."""
        runs = []
        for seed in range(self.seeds):
            for name in transformer_report.OPTIMIZERS:
                given = dict(seed=seed, optimizer=name, lr=lr[name], label_noise=noise)
                epochs = PROBLEMS[dataset]["epochs"]
                runs += [_make(dataset, "sgd", epochs=n * epochs, **given) for n in (1, 2)]
                runs += [
                    _make(dataset, method, rho=rho[optimizer, method], **given)
                    for optimizer, method in RADII
                    if optimizer == name
                ]
        return runs

    def _tuning(self, dataset: str, method: str, **settings: Any) -> RunConfig:
        return _make(dataset, method, seed=self.seeds, **TUNING[dataset], **settings)


def _make(dataset: str, method: str, **settings: Any) -> RunConfig:
    problem = PROBLEMS[dataset]
    every = settings.get("epochs", problem["epochs"])
    values = SHARED | problem | dict(test_every=every) | settings
    return run_config.make(dataset, method, **values)


def run(plan: Plan, options: runner.Options) -> int:
    """Problem by problem and level by level, chooses and trains; returns the number of runs."""
    options = dataclasses.replace(options, kind=transformer_report.KIND)
    count = 0

    def finish(configs: list[RunConfig]) -> list[dict[str, Any]]:
        nonlocal count
        count += len(configs)
        return runner.run_all(configs, options, announce=True)

    for dataset in plan.datasets:
        lr = chosen_rates(finish(plan.rates(dataset)))
        for noise in plan.noise:
            rho = chosen_radii(finish(plan.radii(dataset, noise, lr)))
            finish(plan.final(dataset, noise, lr, rho))
    return count


def chosen_rates(records: list[dict[str, Any]]) -> dict[str, float]:
    """Each optimizer's learning rate in these runs of it alone; of all where none fits."""
    found = groups(records)
    fitting = [group for group in found if min(transformer_report.fit(group)) >= FITTED]
    names, chosen = ("optimizer",), "lr"
    made = transformer_report.best(found, names, chosen)
    made |= transformer_report.best(fitting, names, chosen)
    return {name: lr for (name,), lr in made.items()}


def chosen_radii(records: list[dict[str, Any]]) -> dict[tuple[str, str], float]:
    """Each optimizer's and method's radius in runs of one problem and level of noise."""
    best = transformer_report.best(groups(records), ("optimizer", "method"), "rho")
    return {(name, method): rho for (name, method), rho in best.items()}
