"""`study pareto`: test accuracy against cost in gradients, for every variant of a step.

Each variant has the same number of settings to choose from. Both problems are such that SGD learns
wrong labels: where a network does not even learn the right ones there is no gain to keep.
"""

from experiments.studies import fitted
from experiments.studies.study import AUTHORS_RULE, Arm, Problem, Study
from experiments.training.variants import EXACT, VARIANTS

RADII = (0.5, 0.75, 1.0, 1.5, 2.0, 3.0)
# A variant with a weight has every other radius, at two weights.
WEIGHTS = {"gsam": (0.1, 0.3), "wsam": (0.6, 0.8), "le-sam": (0.1, 0.4)}
WEIGHTS |= {"look4": (0.3, 0.7), "look16": (0.3, 0.7)}


def _arm(name: str) -> Arm:
    grid = dict(rho=RADII[::2], weight=WEIGHTS[name]) if name in WEIGHTS else dict(rho=RADII)
    said, role = ("ASAM", "asam") if name == EXACT else (name, "cheap")
    return Arm(said, dict(method="asam", variant=name), grid, role=role)


STUDIES = {
    "pareto": Study(
        name="pareto",
        title="Accuracy against cost",
        question=(
            "What each variant of ASAM's step keeps of its gain, and at which cost. Radius and "
            "weight of each are chosen from the same number of settings." + AUTHORS_RULE
        ),
        problems=(
            Problem(
                "digits, cnn, 40% label noise",
                dict(dataset="digits", model="cnn", epochs=30, label_noise=0.4),
                dict(validation=0.25),
            ),
            Problem(
                "cifar10, resnet8, 40% label noise, 5,000 images",
                fitted.SETTINGS | dict(label_noise=0.4, subset=5000),
                dict(validation=0.25),
            ),
        ),
        arms=(
            Arm("SGD", dict(method="sgd"), role="base"),
            Arm("SGD, twice the epochs", dict(method="sgd"), epochs=2, role="twice"),
            *map(_arm, VARIANTS),
        ),
        references=("SGD", "ASAM"),
        share=("SGD", "ASAM"),
    )
}
