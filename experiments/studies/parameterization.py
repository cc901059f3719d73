"""`study parameterization`: what a rescaling of the layers does to each method.

w = s * theta leaves the network and SGD's training as they are. Radii are chosen on the network as
it is and carried over, and chosen anew.
"""

from typing import Any

from experiments.studies import fitted
from experiments.studies.study import Arm, Problem, Study

# In 60 epochs SGD fits the wrong labels, too.
DIGITS = dict(dataset="digits", label_noise=0.4, epochs=60)
CIFAR10 = fitted.SETTINGS | dict(label_noise=0.4)
SAM = tuple(round(0.05 * 2 ** (n / 2), 4) for n in range(12))
AUTHORS = tuple(round(0.25 * 2 ** (n / 2), 4) for n in range(10))
ASAM = tuple(round(0.5 * 2 ** (n / 2), 4) for n in range(10))
METHODS: dict[str, tuple[dict[str, Any], tuple[float, ...]]] = {
    "SAM": (dict(method="sam"), SAM),
    "ASAM, authors' rule": (dict(method="asam"), AUTHORS),
    "ASAM": (dict(method="asam", adapt="all", eta=0.0), ASAM),
}


def _problems(data: str, model: str, settings: dict[str, Any], tuning) -> list[Problem]:
    name = f"{data}, {model}, 40% noise"
    return [
        Problem(
            f"{name}, {scaling}",
            settings | dict(model=model, parameterization=scaling),
            tuning,
            origin=None if scaling == "as is" else f"{name}, as is",
        )
        for scaling in ("as is", "ntk", "layer", "node")
    ]


STUDIES = {
    "parameterization": Study(
        name="parameterization",
        title="The same network with its layers rescaled",
        question=(
            "w = s * theta, trained in theta, with SGD's learning rate over s^2 so that SGD in w "
            "is the same: as is; ntk, s = sqrt(2 / fan in); layer, one layer times 4 and the next "
            "a quarter; node, every output by its own factor from 1/8 to 8. Radii are chosen on "
            "the network as it is and carried over, and chosen anew."
        ),
        problems=(
            *_problems("digits", "mlp", DIGITS, dict(validation=0.25)),
            *_problems("digits", "cnn", DIGITS, dict(validation=0.25)),
            # Without node, for two cores' time.
            *_problems("cifar10", "resnet8", CIFAR10, fitted.TUNING)[:3],
        ),
        arms=(
            Arm("SGD", dict(method="sgd")),
            *(
                Arm(f"{name}, rho {how}", settings, dict(rho=radii), origin=how == "carried over")
                for name, (settings, radii) in METHODS.items()
                for how in ("carried over", "anew")
            ),
        ),
        references=("SGD",),
        wide=True,
    )
}
