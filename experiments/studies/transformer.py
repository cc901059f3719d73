"""`study transformer`: a small transformer under AdamW and Muon, alone and with SAM and ASAM.

The epochs were chosen by AdamW alone, on images that choices are made by. The learning rate of each
optimizer is chosen on clean labels, before SAM or ASAM saw the problem, among those that fit them;
then, at that rate, the radius for each level of noise.
"""

import dataclasses
from collections.abc import Iterable

from experiments.studies.operators import METHODS
from experiments.studies.study import Arm, Problem, Study

SHARED = dict(model="vit", warmup=0.1, epochs=40)
DATA = {
    "digits": dict(dataset="digits", subset=973),
    "cifar10": dict(dataset="cifar10", subset=2500, augment=False),
}
# The other quarter of the digits judges, and the next 2,500 images of CIFAR-10.
TUNING = {
    "digits": dict(subset=None, validation=0.25),
    "cifar10": dict(subset=5000, validation=0.5),
}
RATES = (2.5e-4, 5e-4, 1e-3, 2e-3, 4e-3)
# In the table that opens the report, where of two rows with the same role the last one counts.
ROLES = {"AdamW": "base", "AdamW, twice the epochs": "twice", "SAM on AdamW": "sam"}
ROLES |= {"ASAM, authors' rule on AdamW": "asam", "ASAM on AdamW": "asam"}
SAM, ASAM = (0.05, 0.1, 0.2, 0.4, 0.8), (0.25, 0.5, 1.0, 2.0, 4.0)


def problem(data: str, noise: float) -> Problem:
    """A level of noise; learning rates come from that without."""
    name = f"{data}, vit, {{:g}}% label noise".format
    settings = SHARED | DATA[data] | dict(label_noise=noise)
    return Problem(name(100 * noise), settings, TUNING[data], name(0) if noise else None)


def _of(optimizer: str, name: str, methods: Iterable[str]) -> list[Arm]:
    made = dict(optimizer=optimizer)
    alone = made | dict(method="sgd")
    rows = [
        Arm(name, alone, dict(lr=RATES), origin=True, fits=True),
        Arm(f"{name}, twice the epochs", alone, base=name, epochs=2),
    ]
    for method in methods:
        radii = SAM if method == "SAM" else ASAM
        rows += [Arm(f"{method} on {name}", made | METHODS[method], dict(rho=radii), base=name)]
    return [dataclasses.replace(arm, role=ROLES.get(arm.name, "")) for arm in rows]


STUDIES = {
    "transformer": Study(
        name="transformer",
        title="A transformer under AdamW and under Muon",
        question=(
            "A small vision transformer, 40 epochs. Learning rates are the best of those at which "
            "the optimizer alone fits clean labels, if there are any. ASAM scales every leaf, with "
            "eta 0; the authors' rule the weights alone, with eta 0.01, as filter-wise scales do."
        ),
        problems=tuple(problem(data, noise) for data in DATA for noise in (0.0, 0.4)),
        arms=(*_of("adamw", "AdamW", METHODS), *_of("muon", "Muon", ["ASAM, authors' rule"])),
        references=("AdamW", "SAM on AdamW", "ASAM, authors' rule on AdamW"),
        tuning_seeds=1,
    )
}
