"""`study fitted`: Table 3 where the network fits its labels, which is the paper's regime.

The problem was chosen by runs of SGD alone, before SAM or ASAM saw it: 2,500 images of CIFAR-10,
ResNet-8, 20 epochs, no augmentation, where SGD fits clean labels and labels of which 40% were drawn
anew. Everything else is the paper's. SAM and ASAM train at the paper's radius and at a chosen one.
"""

from experiments.config import paper
from experiments.studies.study import AUTHORS_RULE, Arm, Problem, Study

SETTINGS = dict(dataset="cifar10", model="resnet8", subset=2500, augment=False, epochs=20)
TUNING = dict(subset=5000, validation=0.5)
RADII = {"sam": (0.05, 0.1, 0.2, 0.4), "asam": (0.25, 0.5, 1.0, 2.0)}
VARIANTS = ("early", "late", "early4", "late4", "last", "last-friendly", "part16", "part16-last")
VARIANTS = (*VARIANTS, "part16-last-friendly")


def problem(noise: float, words: str = "label noise") -> Problem:
    """A level of noise."""
    name = f"cifar10, resnet8, {100 * noise:g}% {words}"
    return Problem(name, SETTINGS | dict(label_noise=noise), TUNING)


STUDIES = {
    "fitted": Study(
        name="fitted",
        title="CIFAR-10 with label noise, labels fitted",
        question=(
            "Table 3 where the network fits its labels, wrong ones too, as the paper's networks "
            "do: 2,500 images of CIFAR-10, ResNet-8, 20 epochs, no augmentation. Radii are the "
            "paper's, and those that other training images chose." + AUTHORS_RULE
        ),
        problems=tuple(map(problem, paper.NOISE_LEVELS)),
        arms=(
            Arm("SGD", dict(method="sgd"), role="base"),
            Arm("SGD, twice the epochs", dict(method="sgd"), epochs=2, role="twice"),
            Arm("SAM, the paper's rho", dict(method="sam")),
            Arm("SAM", dict(method="sam"), dict(rho=RADII["sam"]), role="sam"),
            Arm("ASAM, the paper's rho", dict(method="asam")),
            Arm("ASAM", dict(method="asam"), dict(rho=RADII["asam"]), role="asam"),
            *(
                Arm(name, dict(method="asam", variant=name), dict(rho=RADII["asam"]), role="cheap")
                for name in VARIANTS
            ),
        ),
        references=("SGD", "SAM"),
        share=("SGD", "ASAM"),
        tuning_seeds=1,
    )
}
