"""`study operators`: which T_w to use, each at its own radius.

SAM and four operators of ASAM, radii in steps of 2^(1/4) on a validation split.
`operators_digits` and `operators_cifar10` differ in the radii that are tried.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from experiments.studies import fitted
from experiments.studies.study import Arm, Problem, Study

# In 60 epochs SGD fits the wrong labels, too.
DIGITS = dict(dataset="digits", label_noise=0.4, epochs=60)
METHODS: dict[str, dict[str, Any]] = {
    "SAM": dict(method="sam"),
    "ASAM, authors' rule": dict(method="asam"),
    "ASAM, eta 0.01": dict(method="asam", adapt="all"),
    "ASAM": dict(method="asam", adapt="all", eta=0.0),
    "ASAM, filter-wise": dict(method="asam", normalization="filterwise"),
}
THREE = ("SAM", "ASAM, authors' rule", "ASAM")
QUESTION = (
    "ASAM scales every leaf, with eta 0, by default; the authors' rule scales the weights alone, "
    "with eta 0.01, and so do filter-wise scales here. Radii are tried in steps of 2^(1/4)."
)


def radii(smallest: float, count: int, an_octave: int = 4) -> tuple[float, ...]:
    """So many, from the smallest on, with so many to a factor of 2."""
    return tuple(round(smallest * 2 ** (n / an_octave), 4) for n in range(count))


def arms(names: Iterable[str], *grids: Sequence[float], **roles: str) -> tuple[Arm, ...]:
    """SGD and methods by name, with the radii that are tried, and by name what their role is."""
    methods = (
        Arm(name, METHODS[name], dict(rho=grid), role=roles.get(name, ""))
        for name, grid in zip(names, grids, strict=True)
    )
    return (Arm("SGD", dict(method="sgd"), role=roles.get("SGD", "")), *methods)


def _study(name: str, title: str, problems: tuple[Problem, ...], *grids) -> Study:
    return Study(
        name=name,
        title=title,
        question=QUESTION,
        problems=problems,
        arms=arms(METHODS, *grids, SGD="base", SAM="sam", ASAM="asam"),
        references=("SGD", "SAM", "ASAM, authors' rule"),
    )


_NETWORKS = {"mlp": "mlp", "cnn": "cnn with BatchNorm"}
_NETWORKS |= {"cnn_without_norm": "cnn without BatchNorm"}
_DIGITS = tuple(
    Problem(f"digits, {words}, 40% noise", DIGITS | dict(model=model), dict(validation=0.25))
    for model, words in _NETWORKS.items()
)
STUDIES = {
    "operators_digits": _study(
        "operators_digits",
        "Which operator, on the digits",
        _DIGITS,
        *(radii(smallest, 14) for smallest in (0.1, 0.7071, 1, 1, 0.25)),
    ),
    "operators_cifar10": _study(
        "operators_cifar10",
        "Which operator, on CIFAR-10 with labels fitted",
        tuple(fitted.problem(noise, "noise") for noise in (0.4, 0.6, 0.0)),
        *(radii(smallest, 5) for smallest in (0.1414, 0.8409, 1.4142, 1.4142, 0.1414)),
    ),
}
