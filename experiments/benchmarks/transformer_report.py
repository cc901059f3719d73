"""The table of `benchmark transformer`, from its result lines alone."""

import statistics
from typing import Any

from experiments.config import paper
from experiments.config.step_forms import gradients_per_step
from experiments.reporting import opening
from experiments.reporting.mean_std import format_mean_std
from experiments.reporting.summaries import Section, commands, measured_on
from experiments.reporting.tables import OPTIMIZER_NAMES, Group, by_platform, groups, markdown

KIND = "transformer_run"
OPTIMIZERS = ("adamw", "muon")
DATASETS = {"digits": "digits", "cifar10": "CIFAR-10"}
FOOTNOTE = (
    "Final test accuracy, mean ± sample standard deviation over seeds; training accuracy is that "
    "of the last epoch, on the labels as given. Cost counts gradients of a whole batch, in those "
    "of the optimizer alone. Learning rates, of five a factor of two apart, are the best of those "
    "at which the optimizer alone fits clean labels (training accuracy of 99%), if there are any; "
    "radii, of five a factor of two apart, the best at that rate for the row's label noise. Both "
    "are judged by another seed on training images that were held out under their true labels; "
    "the test set chose nothing."
)
AT_AN_EDGE = (
    "(*) The largest or the smallest that was tried: a better one may lie beyond, and the row may "
    "have less than its due."
)
HEADER = [
    "data",
    "label noise",
    "optimizer",
    "method",
    "learning rate",
    "rho",
    "cost",
    "training accuracy, %",
    "test accuracy, %",
    "runs",
]


def sections(records: list[dict[str, Any]]) -> list[Section]:
    """A table for each kind of device with final runs."""
    made = []
    for platform, lines in by_platform(records).items():
        found = groups(lines)
        if not _final(found):
            continue
        rows = table(found)
        said = [FOOTNOTE, AT_AN_EDGE] if "*" in rows else [FOOTNOTE]
        title = "A transformer under AdamW and under Muon"
        title += "" if platform == "cpu" else f", {platform.upper()}"
        body = [rows, *said, measured_on(found), commands(found)]
        made.append(Section(title, "\n\n".join(body), (), tuple(outcomes(found, platform))))
    return made


def outcomes(found: list[Group], platform: str) -> list[opening.Outcome]:
    """Each optimizer's rows of the table that opens the report, by data and label noise."""
    problems: dict[tuple, list[Group]] = {}
    for group in sorted(_final(found), key=_place):
        names = ("dataset", "model", "optimizer", "label_noise")
        problems.setdefault(tuple(group[name] for name in names), []).append(group)
    made = []
    for (data, model, name, noise), rows in problems.items():
        plain = [group for group in rows if group["method"] == "sgd"]  # the shorter first
        if not plain:
            continue
        of_method = {group["method"]: group for group in rows}
        problem = (
            f"{data}, {model}, {OPTIMIZER_NAMES[name]}, {100 * noise:g}% label noise, "
            f"{rows[0]['train_images']:,} images, {platform.upper()}"
        )
        twice = plain[1] if len(plain) > 1 else None
        sam, asam = of_method.get("sam"), of_method.get("asam")
        made.append(opening.Outcome(problem, "a validation split", plain[0], twice, sam, asam))
    return made


def best(found: list[Group], names: tuple[str, ...], chosen: str) -> dict[tuple, float]:
    """For each value of `names` the `chosen` setting with the best mean; ties: the smaller."""
    found = sorted(found, key=lambda g: (-statistics.mean(g.final), g[chosen]))
    made: dict[tuple, float] = {}
    for group in found:
        made.setdefault(tuple(group[name] for name in names), group[chosen])
    return made


def fit(group: Group) -> list[float]:
    """Training accuracy in the last epoch."""
    return [run["metrics"]["train_accuracy"][-1] for run in group.runs]


def table(found: list[Group]) -> str:
    """A row for each final configuration."""
    final = _final(found)
    tuning = [group for group in found if group not in final]
    shortest: dict[str, int] = {}
    for group in final:
        name = group["dataset"]
        shortest[name] = min(shortest.get(name, group["epochs"]), group["epochs"])
    rows = []
    for group in sorted(final, key=_place):
        length = group["epochs"] / shortest[group["dataset"]]
        rows.append(
            [
                DATASETS[group["dataset"]],
                f"{100 * group['label_noise']:g}%",
                OPTIMIZER_NAMES[group["optimizer"]],
                _method(group, length),
                _learning_rate(group, tuning),
                _radius(group, tuning),
                f"{length * gradients_per_step(group['method']):g}",
                format_mean_std(fit(group)),
                format_mean_std(group.final),
                str(len(group.runs)),
            ]
        )
    return markdown(HEADER, rows)


def _final(found: list[Group]) -> list[Group]:
    return [group for group in found if not group.runs[0].get("validation")]


def _place(group: Group) -> tuple:
    return (
        list(DATASETS).index(group["dataset"]),
        group["label_noise"],
        OPTIMIZERS.index(group["optimizer"]),
        paper.METHODS.index(group["method"]),
        group["epochs"],
        group["rho"],
    )


def _method(group: Group, length: float) -> str:
    if group["method"] != "sgd":
        return paper.METHOD_NAMES[group["method"]]
    return "alone" if length == 1 else f"alone, {length:g} times the epochs"


def _learning_rate(group: Group, tuning: list[Group]) -> str:
    same = ("dataset", "optimizer")
    tried = [g["lr"] for g in _alike(group, tuning, same) if g["method"] == "sgd"]
    return _marked(group["lr"], tried)


def _radius(group: Group, tuning: list[Group]) -> str:
    if group["method"] == "sgd":
        return "-"
    same = ("dataset", "optimizer", "method", "label_noise", "lr")
    return _marked(group["rho"], [g["rho"] for g in _alike(group, tuning, same)])


def _alike(group: Group, tuning: list[Group], names: tuple[str, ...]) -> list[Group]:
    return [g for g in tuning if all(g[name] == group[name] for name in names)]


def _marked(value: float, tried: list[float]) -> str:
    """The value, with a star where it is the first or the last of those tried."""
    edge = len(tried) > 1 and value in (min(tried), max(tried))
    return f"{value:g} (*)" if edge else f"{value:g}"
