"""`study operators`: which T_w to use, each at its own radius.

SAM and four operators of ASAM, radii in steps of 2^(1/4) on a validation split. A factor of two
between radii stops up to twice short of the edge behind the best one, and decides by luck.
`operators_digits` and `operators_cifar10` differ in the radii that are tried.
"""

from typing import Any

from experiments.studies import fitted
from experiments.studies.study import Arm, Problem, Study

METHODS: dict[str, dict[str, Any]] = {
    "SAM": dict(method="sam"),
    "ASAM, authors' rule": dict(method="asam"),
    "ASAM, eta 0.01": dict(method="asam", adapt="all"),
    "ASAM": dict(method="asam", adapt="all", eta=0.0),
    "ASAM, filter-wise": dict(method="asam", normalization="filterwise"),
}
QUESTION = (
    "ASAM scales every leaf, with eta 0, by default; the authors' rule scales the weights alone, "
    "with eta 0.01, and so do filter-wise scales here. Radii are tried in steps of 2^(1/4)."
)


def radii(smallest: float, count: int, an_octave: int = 4) -> tuple[float, ...]:
    """So many, from the smallest on, with so many to a factor of 2."""
    return tuple(round(smallest * 2 ** (n / an_octave), 4) for n in range(count))


def _study(name: str, title: str, problems: tuple[Problem, ...], grids) -> Study:
    arms = (  # SAM and ASAM have columns in the table that opens the report
        Arm(m, METHODS[m], dict(rho=grid), role=m.lower() if m in ("SAM", "ASAM") else "")
        for m, grid in zip(METHODS, grids, strict=True)
    )
    return Study(
        name=name,
        title=title,
        question=QUESTION,
        problems=problems,
        arms=(Arm("SGD", dict(method="sgd"), role="base"), *arms),
        references=("SGD", "SAM", "ASAM, authors' rule"),
    )


_DIGITS = tuple(
    Problem(
        f"digits, {words}, 40% noise",
        dict(dataset="digits", model=model, label_noise=0.4, epochs=60),
        dict(validation=0.25),
    )
    for model, words in (
        ("mlp", "mlp"),
        ("cnn", "cnn with BatchNorm"),
        ("cnn_without_norm", "cnn without BatchNorm"),
    )
)
_CIFAR10 = tuple(
    Problem(
        f"cifar10, resnet8, {100 * noise:g}% noise",
        fitted.SETTINGS | dict(label_noise=noise),
        fitted.TUNING,
    )
    for noise in (0.4, 0.6, 0.0)
)
STUDIES = {
    "operators_digits": _study(
        "operators_digits",
        "Which operator, on the digits",
        _DIGITS,
        (radii(0.1, 14), radii(0.7071, 14), radii(1, 14), radii(1, 14), radii(0.25, 14)),
    ),
    "operators_cifar10": _study(
        "operators_cifar10",
        "Which operator, on CIFAR-10 with labels fitted",
        _CIFAR10,
        (radii(0.1414, 5), radii(0.8409, 5), radii(1.4142, 5), radii(1.4142, 5), radii(0.1414, 5)),
    ),
}
