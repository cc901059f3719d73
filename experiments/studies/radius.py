"""`study radius`: a rule that chooses rho in training, against constants, for SAM and for ASAM.

The rule has one weight for all problems, chosen on some of them and judged on the others; so has
one of the constants.
"""

from typing import Any

from experiments.studies.study import AUTHORS_RULE, Arm, Problem, Study

RADII = {"sam": (0.05, 0.1, 0.2, 0.4, 0.8), "asam": (0.5, 1.0, 2.0, 4.0, 8.0)}
CONSTANT = {"sam": 0.2, "asam": 1.0}
LARGEST = {"sam": 0.3, "asam": 1.5}  # of LE-SAM; SAM's is the default of its authors' code
WEIGHTS = (0.05, 0.1, 0.2, 0.4, 0.8)


def _arms(method: str) -> list[Arm]:
    name, grid, one = method.upper(), dict(rho=RADII[method]), CONSTANT[method]
    lesam = dict(method=method, variant="le-sam", rho=LARGEST[method])
    return [
        Arm(f"{name}, best constant", dict(method=method), grid),
        Arm(f"{name}, {one:g}", dict(method=method, rho=one)),
        Arm(f"{name}, one constant", dict(method=method), grid, joint=True),
        Arm(f"{name}, LE-SAM", lesam, dict(weight=WEIGHTS), joint=True),
    ]


def _problem(model: str, noise: float, judges: bool = False, **more: Any) -> Problem:
    # Enough for the MLP and the CNN with BatchNorm to fit most wrong labels.
    epochs = 60 if model == "mlp" else 30
    settings = dict(dataset="digits", model=model, label_noise=noise, epochs=epochs) | more
    words = [model.replace("_", " "), *more.values(), f"{100 * noise:g}% label noise"]
    return Problem(f"digits, {', '.join(words)}", settings, dict(validation=0.25), judges=judges)


STUDIES = {
    "radius": Study(
        name="radius",
        title="A radius that nobody has to tune",
        question=(
            "Best constant: a radius for each problem. All others have one value for all problems: "
            "0.2 and 1; one constant, the one that keeps most of the gain where it keeps least, on "
            "the validation splits of the problems marked (chosen here); LE-SAM, whose weight is "
            "chosen in the same way. LE-SAM (arXiv 2605.10183): at every step rho = min(weight / "
            "||T_w g||, largest), with the weight falling to 0 over the last fifth of the "
            "training, and a largest of 0.3 for SAM and 1.5 for ASAM." + AUTHORS_RULE
        ),
        problems=(
            _problem("mlp", 0.2, judges=True),
            _problem("mlp", 0.6, judges=True),
            _problem("cnn", 0.4, judges=True),
            _problem("mlp", 0.0),
            _problem("mlp", 0.4),
            _problem("mlp", 0.4, parameterization="layer"),
            _problem("mlp", 0.4, optimizer="adamw"),
            _problem("cnn", 0.6),
            _problem("cnn_without_norm", 0.4),
        ),
        arms=(Arm("SGD", dict(method="sgd")), *_arms("sam"), *_arms("asam")),
        references=("SGD",),
        share=("SGD", "ASAM, best constant"),
        seeds=3,
        tuning_seeds=1,
        wide=True,
    )
}
