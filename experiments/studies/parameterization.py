"""`study parameterization`: what a rescaling of the layers does to each method.

w = s * theta leaves the network and SGD's training as they are. Radii are chosen on the network as
it is and carried over, and chosen anew.
"""

import dataclasses
from collections.abc import Sequence

from experiments.studies import fitted
from experiments.studies.operators import DIGITS, THREE, arms, radii
from experiments.studies.study import Problem, Settings, Study


def _problems(data: str, settings: Settings, tuning: Settings, *scalings: str) -> list[Problem]:
    name = f"{data}, {settings['model']}, 40% noise"
    return [
        Problem(
            f"{name}, {scaling}",
            {**settings, "parameterization": scaling},
            tuning,
            origin=None if scaling == "as is" else f"{name}, as is",
        )
        for scaling in ("as is", *scalings)
    ]


def _study(name: str, data: str, problems: list[Problem], *grids: Sequence[float]) -> Study:
    sgd, *methods = arms(THREE, *grids)
    return Study(
        name=name,
        title=f"The same network with its layers rescaled, {data}",
        question=(
            "w = s * theta, trained in theta, with SGD's learning rate over s^2 so that SGD in w "
            "is the same: as is; ntk, s = sqrt(2 / fan in); layer, one layer times 4 and the next "
            "a quarter; node, every output by its own factor from 1/8 to 8. Radii are chosen on "
            "the network as it is and carried over, and chosen anew."
        ),
        problems=tuple(problems),
        arms=(
            sgd,
            *(
                dataclasses.replace(arm, name=f"{arm.name}, rho {how}", origin=how != "anew")
                for arm in methods
                for how in ("carried over", "anew")
            ),
        ),
        references=("SGD",),
        wide=True,
    )


_MLP, _CNN = (
    _problems("digits", DIGITS | dict(model=model), dict(validation=0.25), "ntk", "layer", "node")
    for model in ("mlp", "cnn")
)
STUDIES = {
    "parameterization": _study(
        "parameterization",
        "on the digits",
        _MLP + _CNN,
        *(radii(0.05, 12, 2), radii(0.25, 10, 2), radii(0.5, 10, 2)),
    ),
    # Without node, for two cores' time, and about the radii that `operators_cifar10` chose.
    "parameterization_cifar10": _study(
        "parameterization_cifar10",
        "on CIFAR-10",
        _problems("cifar10", fitted.problem(0.4).settings, fitted.TUNING, "ntk", "layer"),
        *(radii(0.05946, 7, 1), radii(0.2973, 5, 1), radii(0.8409, 3, 1)),
    ),
}
