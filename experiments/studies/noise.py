"""`study weight_noise` and `study noisy_validation`: noise where the other studies have none.

In the weights of finished networks, and in the labels by which a radius is chosen.
"""

from typing import Any

from experiments.reporting.tables import format_mean_std, markdown
from experiments.studies import fitted
from experiments.studies.operators import DIGITS, THREE, arms, radii
from experiments.studies.study import Arm, Problem, Study
from experiments.training.weight_noise import KINDS, LEVELS

ARMS = arms(THREE, radii(0.1, 7, 2), radii(0.70711, 7, 2), radii(1.414214, 7, 2))


def under_noise(rows: Any) -> list[str]:
    """A table: the accuracy of each method's networks under each kind and level of noise."""
    said = []
    for kind in KINDS:
        header = ["method", *(f"{kind} {level:g}" for level in LEVELS)]
        cells = []
        for row in rows:
            runs = [run["weight_noise_accuracy"][kind] for run in row.group.runs]
            by_level = [format_mean_std(list(level)) for level in zip(*runs, strict=True)]
            cells.append([row.arm.name, *by_level])
        said.append(markdown(header, cells))
    return said


def _study(name: str, draws: int, problems: list[Problem], arms: tuple[Arm, ...]) -> Study:
    """With so many draws of the noise for each finished network."""
    return Study(
        name=name,
        title="Noise in the weights of finished networks",
        question=(
            "Every weight of a finished network is moved by Gaussian noise: multiplicative, by "
            "its own absolute value times the level; additive, by the root mean square of its "
            f"array times the level. Test accuracy in percent, the mean of {draws} draws for each "
            "network, then mean ± sample standard deviation over networks."
        ),
        problems=tuple(
            Problem(p.name, {**p.settings, "weight_noise": draws}, {**p.tuning, "weight_noise": 0})
            for p in problems
        ),
        arms=arms,
        references=("SGD", "SAM"),
        notes=under_noise,
    )


def _digits(level: float, words: str = "", **tuning: Any) -> Problem:
    name = f"digits, mlp, {100 * level:g}% label noise{words}"
    settings = DIGITS | dict(model="mlp", label_noise=level)
    return Problem(name, settings, dict(validation=0.25) | tuning)


STUDIES = {
    "weight_noise": _study("weight_noise", 20, [_digits(0.0), _digits(0.4)], ARMS),
    # The radii of `operators_cifar10`; a network's accuracy takes seconds, so fewer draws.
    "weight_noise_cifar10": _study(
        "weight_noise_cifar10",
        5,
        [fitted.problem(0.4)],
        arms(THREE, radii(0.1414, 5), radii(0.8409, 5), radii(1.4142, 5)),
    ),
    "noisy_validation": Study(
        name="noisy_validation",
        title="Radii chosen on noisy validation labels",
        question=(
            "Radii chosen as everywhere here, under true labels, and chosen by validation labels "
            "of which as many were drawn anew as of the training labels."
        ),
        problems=tuple(
            _digits(level, f", {'noisy' if noisy else 'true'} labels judge", noisy_validation=noisy)
            for level in (0.2, 0.4, 0.6)
            for noisy in (False, True)
        ),
        arms=ARMS[:3],
        references=("SGD",),
        wide=True,
    ),
}
