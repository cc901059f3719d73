"""The table of `benchmark fitted`, from its result lines alone."""

import statistics
from typing import Any

from experiments.config import paper
from experiments.config.run_config import default_rho
from experiments.reporting.mean_std import format_mean_std
from experiments.reporting.summaries import Section, commands, measured_on
from experiments.reporting.tables import Group, groups, markdown

KIND = "fitted_run"
FOOTNOTE = (
    "Final test accuracy, mean ± sample standard deviation over seeds. SGD's training accuracy is "
    "that of its last epoch, on the labels as given: the network fits them, wrong ones too, as the "
    "paper's networks do. SGD for twice the epochs costs as many gradients as SAM and ASAM. The "
    "second radius of each, in brackets, is the best of four on 2,500 other training images under "
    "their true labels; the test set chose nothing. The paper's Table 3 (ResNet-32, 50,000 images) "
    "has its best epochs in its last column."
)
HEADER = [
    "label noise",
    "SGD fits, %",
    "SGD, %",
    "SGD, twice the epochs, %",
    "SAM, paper's rho, %",
    "SAM, chosen rho, %",
    "ASAM, paper's rho, %",
    "ASAM, chosen rho, %",
    "the paper's SGD / SAM / ASAM, %",
]


def sections(records: list[dict[str, Any]]) -> list[Section]:
    """The table, if there are final runs."""
    found = groups(records)
    final = [group for group in found if not group.runs[0].get("validation")]
    if not final:
        return []
    body = [table(found), FOOTNOTE, measured_on(found), commands(found)]
    return [Section("CIFAR-10 with label noise, labels fitted", "\n\n".join(body))]


def chosen(found: list[Group]) -> dict[tuple[float, str], float]:
    """The radius of each level of noise and method with the best mean on the validation split."""
    best: dict[tuple[float, str], tuple[float, float]] = {}
    for group in found:
        if group.runs[0].get("validation"):
            key = group["label_noise"], group["method"]
            value = statistics.mean(group.final), -group["rho"]  # ties: the smaller
            best[key] = max(best.get(key, value), value)
    return {key: -rho for key, (_, rho) in best.items()}


def table(found: list[Group]) -> str:
    """A row for each level of noise."""
    radii = chosen(found)
    rows = []
    for noise in sorted({group["label_noise"] for group in found}):
        level = [g for g in found if g["label_noise"] == noise and not g.runs[0].get("validation")]
        plain = sorted((g for g in level if g["method"] == "sgd"), key=lambda g: g["epochs"])
        row = [f"{100 * noise:g}%"]
        row.append(format_mean_std(_fit(plain[0])) if plain else "-")
        row += [format_mean_std(g.final) for g in plain[:2]] + ["-"] * (2 - len(plain))
        for method in ("sam", "asam"):
            of_method = {g["rho"]: g for g in level if g["method"] == method}
            row.append(_at(of_method, default_rho("cifar10", method)))
            rho = radii.get((noise, method))
            row.append("-" if rho is None else f"{_at(of_method, rho)} ({rho:g})")
        row.append(" / ".join(f"{paper.TABLE3[noise][m][0]:.2f}" for m in paper.METHODS))
        rows.append(row)
    return markdown(HEADER, rows)


def _fit(group: Group) -> list[float]:
    return [run["metrics"]["train_accuracy"][-1] for run in group.runs]


def _at(of_method: dict[float, Group], rho: float) -> str:
    return format_mean_std(of_method[rho].final) if rho in of_method else "-"
