"""What the report says of the runs that belong to no study or figure: tables, then other data.

No data set is named here: a table is an entry of `paper.TABLES`, and runs that are in none have a
part for each data set.
"""

import statistics
from functools import partial
from typing import Any

from experiments.config import paper
from experiments.datasets.source import source
from experiments.reporting import curves, style
from experiments.reporting.summaries import Picture, Section, commands, measured_on
from experiments.reporting.tables import (
    Group,
    by_platform,
    format_mean_std,
    groups,
    markdown,
    method_name,
    runs_table,
)

FOOTNOTE = (
    "Mean ± sample standard deviation over seeds. The final epoch is the honest column; the best "
    "epoch is picked on the test set, as in the paper's tables. A step of SGD costs one gradient, "
    "of SAM and ASAM two."
)
PAPER_FOOTNOTE = (
    "SGD gets twice the epochs of SAM and ASAM, so that all methods cost the same number of "
    "gradients. Rows marked as reduced trained on fewer images or for fewer epochs than the paper: "
    "their accuracies are not the paper's to compare with."
)
SWEEP_FOOTNOTE = (
    "Final test accuracy, mean ± sample standard deviation over seeds. The best rho of each sweep, "
    "in brackets, is picked on the test set, for SAM and ASAM alike: it flatters both."
)


def sections(records: list[dict[str, Any]]) -> list[Section]:
    """The tables in the paper's order, then other runs by data set."""
    made = []
    for platform, lines in by_platform(records).items():
        found = groups(lines)
        where = "" if platform == "cpu" else f", {platform.upper()}"
        for table in paper.TABLES.values():
            rows = [group for group in found if table.holds(group)]
            found = [group for group in found if group not in rows]
            if rows:
                made.append(_of_table(table, rows, where))
        for name in dict.fromkeys(group["dataset"] for group in found):
            rows = [group for group in found if group["dataset"] == name]
            body = [runs_table(rows), FOOTNOTE, measured_on(rows), commands(rows)]
            made.append(Section(f"Runs on {name}{where}", "\n\n".join(body)))
    return made


def _of_table(table: paper.Table, rows: list[Group], where: str) -> Section:
    body = [runs_table(rows), FOOTNOTE, *[PAPER_FOOTNOTE] * bool(table.numbers)]
    if table.sweep:
        body = [_sweep_table(rows), SWEEP_FOOTNOTE, *body]
    body += [measured_on(rows), commands(rows)]
    return Section(f"{table.title}{where}", "\n\n".join(body), _pictures(rows) if not where else ())


def _by_problem(rows: list[Group]) -> dict[tuple[str, str, float], list[Group]]:
    """The rows of each data set, network and level of noise."""
    found: dict[tuple[str, str, float], list[Group]] = {}
    for group in rows:
        problem = (group["dataset"], group["model"], group["label_noise"])
        found.setdefault(problem, []).append(group)
    return found


def _pictures(rows: list[Group]) -> tuple[Picture, ...]:
    """Accuracy over rho, where several were tried, for each problem."""
    made: list[Picture] = []
    for (data, model, noise), level in _by_problem(rows).items():
        if len({group["rho"] for group in level}) > len({group["method"] for group in level}):
            title = f"{data}, {model}, {100 * noise:g}% label noise"
            name = f"{data}_{model}_noise{100 * noise:g}_rho.png"
            of = {m: [group for group in level if group["method"] == m] for m in paper.METHODS}
            series = {
                (paper.METHOD_NAMES[method], style.COLORS[method], "o"): of[method]
                for method in paper.METHODS[1:]
            }
            made.append((name, partial(curves.over_radius, series, of["sgd"], title=title)))
    return tuple(made)


def _sweep_table(rows: list[Group]) -> str:
    """Final accuracy by problem, each method at its data set's own radius and at the best."""
    made, names = [], paper.METHOD_NAMES
    for (data, model, noise), level in sorted(_by_problem(rows).items(), key=lambda item: item[0]):
        cells = [model, f"{100 * noise:g}%"]
        for method in paper.METHODS:
            of_method = [g for g in level if g["method"] == method]
            rho = source(data).rho.get(method, 0.0)
            own = [g for g in of_method if g["rho"] == rho and method_name(g) == names[method]]
            cells.append(format_mean_std(own[0].final) if own else "-")
            if method != "sgd":
                best = sorted(of_method, key=lambda g: statistics.mean(g.final))[-1:]
                tried = [f"{format_mean_std(g.final)} ({g['rho']:g})" for g in best]
                cells.append(tried[0] if len(of_method) > 1 else "-")
        made.append(cells)
    header = ["model", "label noise", "SGD, %"]
    for name in (names[method] for method in paper.METHODS[1:]):
        header += [f"{name} at the paper's rho, %", f"{name} at its best rho, %"]
    return markdown(header, made)
