"""`study radius`: rules that choose ASAM's rho in training, against a sweep of constant radii.

A constant may be another on each problem; a rule has one target for all of them.
"""

from experiments.studies import fitted, transformer
from experiments.studies.study import Arm, Problem, Study

RADII = (0.5, 1.0, 2.0, 4.0)
TARGETS = {
    "rise": (0.2, 0.3, 0.4),
    "relative": (0.1, 0.2, 0.35),
    "linear": (0.15, 0.25),
    "departure": (1.3, 1.6),
}
START = 1.0  # where a rule begins, and the constant that needs no choice
# AdamW's best rate of those that `study transformer` judges on a validation split.
VIT = transformer.SHARED | transformer.DATA["cifar10"] | dict(optimizer="adamw", lr=4e-3)


def _problems(name: str, settings: dict, tuning: dict, noise: tuple[float, ...]) -> list[Problem]:
    return [
        Problem(f"{name}, {100 * level:g}% label noise", settings | dict(label_noise=level), tuning)
        for level in noise
    ]


STUDIES = {
    "radius": Study(
        name="radius",
        title="A radius that nobody has to tune",
        question=(
            "Rules that ask `radius_profile` ten times in a training, each at the one target, for "
            "all problems, whose worst share of the gain on the validation splits is the best; "
            "and constant radii, the best chosen for each problem. Rise: the loss of a batch rises "
            "by the target; relative: by that share of itself; linear: its linearisation does; "
            "departure: the loss rises by the target times its linearisation."
        ),
        problems=(
            *_problems(
                "digits, cnn",
                dict(dataset="digits"),
                dict(validation=0.25),
                (0.0, 0.2, 0.4, 0.6, 0.8),
            ),
            *_problems("cifar10, resnet8", fitted.SETTINGS, fitted.TUNING, (0.0, 0.4, 0.8)),
            *_problems("cifar10, vit, AdamW", VIT, fitted.TUNING, (0.0, 0.4)),
        ),
        arms=(
            Arm("alone", dict(method="sgd")),
            Arm("best constant", dict(method="asam"), dict(rho=RADII)),
            Arm("constant 1", dict(method="asam", rho=START)),
            *(
                Arm(
                    rule,
                    dict(method="asam", radius_rule=rule, rho=START),
                    dict(target=targets),
                    joint=True,
                )
                for rule, targets in TARGETS.items()
            ),
        ),
        references=("alone",),
        share=("alone", "best constant"),
        tuning_seeds=1,
        wide=True,
    )
}
