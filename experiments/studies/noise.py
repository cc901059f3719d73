"""`study weight_noise` and `study noisy_validation`: noise where the other studies have none.

In the weights of finished networks, and in the labels by which a radius is chosen.
"""

from typing import Any

from experiments.reporting.tables import format_mean_std, markdown
from experiments.studies.parameterization import DIGITS
from experiments.studies.study import Arm, Problem, Study
from experiments.training.weight_noise import KINDS, LEVELS

SAM = (0.1, 0.1414, 0.2, 0.2828, 0.4, 0.5657, 0.8)
AUTHORS = (0.7071, 1.0, 1.4142, 2.0, 2.8284, 4.0, 5.6569)
ASAM = (1.4142, 2.0, 2.8284, 4.0, 5.6569, 8.0, 11.3137)
ARMS = (
    Arm("SGD", dict(method="sgd")),
    Arm("SAM", dict(method="sam"), dict(rho=SAM)),
    Arm("ASAM, authors' rule", dict(method="asam"), dict(rho=AUTHORS)),
    Arm("ASAM", dict(method="asam", adapt="all", eta=0.0), dict(rho=ASAM)),
)
DRAWS = 20  # of the noise on a network's weights


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


def _problem(words: str, tuning: dict[str, Any], **settings: Any) -> Problem:
    return Problem(f"digits, {words}", DIGITS | settings, dict(validation=0.25) | tuning)


STUDIES = {
    "weight_noise": Study(
        name="weight_noise",
        title="Noise in the weights of finished networks",
        question=(
            "Every weight of a finished network is moved by Gaussian noise: multiplicative, by "
            "its own absolute value times the level; additive, by the root mean square of its "
            f"array times the level. Test accuracy in percent, the mean of {DRAWS} draws for each "
            "network, then mean ± sample standard deviation over networks."
        ),
        problems=tuple(
            _problem(
                f"mlp, {100 * level:g}% label noise",
                dict(weight_noise=0),
                model="mlp",
                label_noise=level,
                weight_noise=DRAWS,
            )
            for level in (0.0, 0.4)
        ),
        arms=ARMS,
        references=("SGD", "SAM"),
        notes=under_noise,
    ),
    "noisy_validation": Study(
        name="noisy_validation",
        title="Radii chosen on noisy validation labels",
        question=(
            "Radii chosen as everywhere here, under true labels, and chosen by validation labels "
            "of which as many were drawn anew as of the training labels."
        ),
        problems=tuple(
            _problem(
                f"mlp, {100 * level:g}% label noise, {'noisy' if noisy else 'true'} labels judge",
                dict(noisy_validation=noisy),
                model="mlp",
                label_noise=level,
            )
            for level in (0.2, 0.4, 0.6)
            for noisy in (False, True)
        ),
        arms=ARMS[:3],
        references=("SGD",),
        wide=True,
    ),
}
