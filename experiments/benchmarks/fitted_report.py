"""The tables of `benchmark fitted`, from its result lines alone."""

import statistics
from typing import Any

from experiments.benchmarks import pareto_report
from experiments.config import paper
from experiments.config.defaults import default_rho
from experiments.config.step_forms import EXACT
from experiments.reporting import opening
from experiments.reporting.mean_std import format_mean_std
from experiments.reporting.summaries import Section, commands, measured_on
from experiments.reporting.tables import Group, by_platform, groups, markdown

KIND = "fitted_run"
FOOTNOTE = (
    "Final test accuracy, mean ± sample standard deviation over seeds. SGD's training accuracy is "
    "that of its last epoch, on the labels as given: the network fits them, wrong ones too, as the "
    "paper's networks do. SGD for twice the epochs costs as many gradients as SAM and ASAM. The "
    "second radius of each, in brackets, is the best of {radii} on 2,500 other training images "
    "under their true labels, by {runs} of other seeds; the test set chose nothing. The paper's "
    "Table 3 (ResNet-32, 50,000 images) has its best epochs in its last column."
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


FORMS_FOOTNOTE = (
    "The same problem and the same choice of radii, for cheaper forms of ASAM's step. Cost counts "
    "gradients of a whole batch, in steps of SGD for the same epochs. Gain kept: the rise above "
    "SGD at the same epochs, relative to exact ASAM's."
)
TITLE = "CIFAR-10 with label noise, labels fitted"
Row = tuple[float, str, str]  # label noise, method, form


def sections(records: list[dict[str, Any]]) -> list[Section]:
    """The methods in one table, the forms of a step in one for each level; by kind of device."""
    made = []
    platforms = by_platform(records)
    for lines in platforms.values():
        found = groups(lines)
        final = _final(found)
        if not final:
            continue
        title = TITLE if len(platforms) == 1 else f"{TITLE}, on {lines[0]['device']['kind']}"
        exact = [group for group in found if _form(group) == EXACT]
        parts = [table(exact), _footnote(exact), measured_on(exact), commands(exact)]
        made.append(Section(title, "\n\n".join(parts), (), tuple(outcomes(found))))
        for noise in sorted({g["label_noise"] for g in final if _form(g) != EXACT}):
            rows = forms(found, noise)
            parts = [pareto_report.table(rows), FORMS_FOOTNOTE, measured_on(rows), commands(rows)]
            made.append(Section(f"{title}: forms, {100 * noise:g}% noise", "\n\n".join(parts)))
    return made


def chosen(found: list[Group]) -> dict[Row, float]:
    """The radius of each level of noise, method and form with the best validated mean."""
    best: dict[Row, tuple[float, float]] = {}
    for group in found:
        if group.runs[0].get("validation"):
            key = group["label_noise"], group["method"], _form(group)
            value = statistics.mean(group.final), -group["rho"]  # ties: the smaller
            best[key] = max(best.get(key, value), value)
    return {key: -rho for key, (_, rho) in best.items()}


def forms(found: list[Group], noise: float) -> list[Group]:
    """SGD, and ASAM's forms at their chosen radii, at one level of noise."""
    radii = chosen(found)
    level = [g for g in _final(found) if g["label_noise"] == noise]
    return [
        g
        for g in level
        if g["method"] == "sgd"
        or (g["method"] == "asam" and g["rho"] == radii.get((noise, "asam", _form(g))))
    ]


def outcomes(found: list[Group]) -> list[opening.Outcome]:
    """Each level's row of the table that opens the report, at the chosen radii."""
    radii, made = chosen(found), []
    for noise in sorted({group["label_noise"] for group in _final(found)}):
        level = [g for g in _final(found) if g["label_noise"] == noise]
        plain = {g["epochs"]: g for g in level if g["method"] == "sgd"}
        if not plain:
            continue
        at = {
            (g["method"], _form(g)): g
            for g in level
            if g["rho"] == radii.get((noise, g["method"], _form(g)))
        }
        epochs = min(g["epochs"] for g in level)
        problem = (
            f"{level[0]['dataset']}, {level[0]['model']}, {100 * noise:g}% label noise, "
            f"{level[0]['train_images']:,} images, {level[0].setting('platform').upper()}"
        )
        made.append(
            opening.Outcome(
                problem,
                "a validation split",
                plain.get(epochs),
                plain.get(2 * epochs),
                at.get(("sam", EXACT)),
                at.get(("asam", EXACT)),
                pareto_report.cheap(forms(found, noise)),
            )
        )
    return made


def table(found: list[Group]) -> str:
    """A row for each level of noise, of the exact methods."""
    radii = chosen(found)
    rows = []
    for noise in sorted({group["label_noise"] for group in found}):
        level = [g for g in _final(found) if g["label_noise"] == noise]
        plain = sorted((g for g in level if g["method"] == "sgd"), key=lambda g: g["epochs"])
        row = [f"{100 * noise:g}%"]
        row.append(format_mean_std(_fit(plain[0])) if plain else "-")
        row += [format_mean_std(g.final) for g in plain[:2]] + ["-"] * (2 - len(plain))
        for method in ("sam", "asam"):
            of_method = {g["rho"]: g for g in level if g["method"] == method}
            row.append(_at(of_method, default_rho("cifar10", method)))
            rho = radii.get((noise, method, EXACT))
            row.append("-" if rho is None else f"{_at(of_method, rho)} ({rho:g})")
        row.append(" / ".join(f"{paper.TABLE3[noise][m][0]:.2f}" for m in paper.METHODS))
        rows.append(row)
    return markdown(HEADER, rows)


def _footnote(found: list[Group]) -> str:
    tuning = [group for group in found if group.runs[0].get("validation")]
    radii = {g["rho"] for g in tuning if g["method"] == "asam"}
    runs = max((len(group.runs) for group in tuning), default=0)
    return FOOTNOTE.format(radii=len(radii), runs=f"{runs} run{'s' * (runs != 1)}")


def _final(found: list[Group]) -> list[Group]:
    return [group for group in found if not group.runs[0].get("validation")]


def _form(group: Group) -> str:
    return group.setting("variant")


def _fit(group: Group) -> list[float]:
    return [run["metrics"]["train_accuracy"][-1] for run in group.runs]


def _at(of_method: dict[float, Group], rho: float) -> str:
    return format_mean_std(of_method[rho].final) if rho in of_method else "-"
