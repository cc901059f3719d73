"""The table and the picture of `benchmark pareto`, from its result lines alone."""

import statistics
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

from experiments.config.defaults import DATASET_DEFAULTS
from experiments.config.step_forms import EXACT, STEP_FORMS, gradients_per_step
from experiments.reporting import opening, style
from experiments.reporting.mean_std import format_mean_std, mean_std
from experiments.reporting.summaries import Section, commands, measured_on
from experiments.reporting.tables import Group, groups, markdown

KIND = "pareto_run"
FOOTNOTE = (
    "Final test accuracy, mean ± sample standard deviation over seeds. Cost counts gradients of a "
    "whole batch, in steps of SGD for the same epochs. Radius and weight of each form are the best "
    "on a quarter of the training images, held out with their true labels, by the same number of "
    "settings for every form and by seeds of their own; the test set chose nothing. Gain kept: the "
    "rise above SGD at the same epochs, relative to exact ASAM's."
)
_PROBLEM = ("dataset", "model", "label_noise", "subset", "augment")


def sections(records: list[dict[str, Any]]) -> list[Section]:
    """One for each data set, network, label noise, number of images, with augmentation or not."""
    found: dict[tuple, list[Group]] = {}
    for group in groups(records):
        found.setdefault(tuple(group[name] for name in _PROBLEM), []).append(group)
    made = []
    for (dataset, model, noise, subset, augmented), of_problem in found.items():
        final = [g for g in of_problem if not g.runs[0].get("validation")]
        if not final:
            continue
        name = f"{dataset}, {model}, {100 * noise:g}% label noise"
        if subset:
            name += f", {subset:,} images"
        if DATASET_DEFAULTS[dataset]["augment"] and not augmented:
            name += " without augmentation"
        picture = f"pareto_{dataset}_{model}_noise{100 * noise:g}.png"
        tuning = [g for g in of_problem if g.runs[0].get("validation")]
        body = [table(final), FOOTNOTE, _budget(tuning), measured_on(of_problem), commands(final)]
        draw = partial(_picture, final, title=f"{dataset}, {100 * noise:g}% label noise")
        made.append(
            Section(
                f"Accuracy against cost: {name}",
                "\n\n".join(body),
                ((picture, draw),),
                outcomes(name, final),
            )
        )
    return made


def _budget(tuning: list[Group]) -> str:
    settings = Counter(map(_form, tuning))
    runs = sorted({len(g.runs) for g in tuning}) or [0]
    said = " to ".join(str(n) for n in dict.fromkeys((runs[0], runs[-1])))
    return f"Chosen from {max(settings.values(), default=0)} settings a form, {said} runs each."


def _form(group: Group) -> str:
    return group.runs[0].get("variant", EXACT)


def _shortest(found: list[Group]) -> int:
    return min(g["epochs"] for g in found)


def cost(group: Group, epochs: int) -> float:
    """In steps of SGD over so many epochs; counted in the runs where training decided it."""
    known = gradients_per_step(group["method"], _form(group))
    counted = statistics.mean(run.get("gradients_per_step", known) for run in group.runs)
    return counted * group["epochs"] / epochs


def name_of(group: Group, epochs: int) -> str:
    """What a row is called."""
    if group["method"] != "sgd":
        return "ASAM" if _form(group) == EXACT else _form(group)
    return "SGD" if group["epochs"] == epochs else "SGD, twice the epochs"


def gains(found: list[Group]) -> dict[str, float | None]:
    """Each row's rise above SGD relative to exact ASAM's; None where that does not rise."""
    epochs = _shortest(found)
    means = {name_of(g, epochs): statistics.mean(g.final) for g in found}
    low, high = means.get("SGD"), means.get("ASAM")
    if low is None or high is None or high <= low:
        return dict.fromkeys(means)
    return {name: (mean - low) / (high - low) for name, mean in means.items()}


CHEAP = 1.1  # the largest cost of a form that the opening table calls cheap


def cheap(found: list[Group]) -> tuple[str, float, Group] | None:
    """The most accurate form of about one gradient: its name, its cost, its runs."""
    epochs = _shortest(found)
    of_form = [g for g in found if g["method"] != "sgd" and _form(g) != EXACT]
    within = [g for g in of_form if cost(g, epochs) <= CHEAP]
    if not within:
        return None
    best = max(within, key=lambda g: statistics.mean(g.final))
    return _form(best), cost(best, epochs), best


def outcomes(problem: str, found: list[Group]) -> tuple[opening.Outcome, ...]:
    """The row of the table that opens the report."""
    epochs = _shortest(found)
    of = {name_of(g, epochs): g for g in found}
    if "SGD" not in of:
        return ()
    twice = of.get("SGD, twice the epochs")
    made = opening.Outcome(
        problem, "a validation split", of["SGD"], twice, None, of.get("ASAM"), cheap(found)
    )
    return (made,)


def table(found: list[Group]) -> str:
    """Rows from the cheapest on, the most accurate first among equals."""
    epochs, gain = _shortest(found), gains(found)
    rows = []
    for group in _sorted(found):
        name = name_of(group, epochs)
        kept = gain[name]
        plain = group["method"] == "sgd"
        rows.append(
            [
                name,
                "one gradient" if plain else STEP_FORMS[_form(group)].text,
                f"{cost(group, epochs):.4g}",
                "-" if plain else f"{group['rho']:g}",
                f"{group.runs[0].get('weight', 0.0):g}" if group.runs[0].get("weight") else "-",
                format_mean_std(group.final),
                str(len(group.runs)),
                "-" if kept is None else f"{100 * kept:.0f}%",
            ]
        )
    header = ["form", "a step", "cost", "rho", "weight", "test accuracy, %", "runs", "gain kept"]
    return markdown(header, rows)


def _sorted(found: list[Group]) -> list[Group]:
    epochs = _shortest(found)
    return sorted(found, key=lambda g: (cost(g, epochs), -statistics.mean(g.final)))


def _picture(found: list[Group], path: Path, title: str) -> None:
    """Accuracy over cost, with the line of those that nothing cheaper beats."""
    figure, axes = style.figure((10.8, 5.4))
    epochs = _shortest(found)
    points = [(cost(g, epochs), *mean_std(g.final), name_of(g, epochs)) for g in _sorted(found)]
    best, front = -1.0, []
    for x, y, _, _ in points:
        if y > best:
            best = y
            front.append((x, y))
    axes.step(
        *zip(*[*front, (2.45, front[-1][1])], strict=True), where="post", color="#b0b0b0", zorder=1
    )
    low = min(y for _, y, _, _ in points)
    high = max(y for _, y, _, _ in points)
    for number, column in enumerate(_columns(points)):
        _draw(axes, column, gap=(high - low) / 26, left=number == 0)
    axes.set_xscale("log")
    axes.set_xlim(0.88, 2.45)
    axes.set_xticks([1, 1.25, 1.5, 2], ["1", "1.25", "1.5", "2"])
    axes.minorticks_off()
    axes.set_xlabel("cost of training (SGD = 1)")
    axes.set_ylabel("final test accuracy (%)")
    axes.set_title(title)
    style.save(figure, path)


_Point = tuple[float, float, float | None, str]  # cost, accuracy, its deviation, name


def _columns(points: list[_Point]) -> list[list[_Point]]:
    """Points whose labels would meet, the cheapest apart: their labels have room on the left."""
    columns: list[list[_Point]] = []
    for point in points:
        first = columns[-1][0][0] if columns else 0.0
        near = point[0] < 1.08 * first if len(columns) > 1 else point[0] == first
        if near:
            columns[-1].append(point)
        else:
            columns.append([point])
    return columns


def _draw(axes, column: list[_Point], *, gap: float, left: bool) -> None:
    """Points, and beside them their labels, best on top, each at least `gap` below the last."""
    label = 0.98 * column[0][0] if left else 1.02 * column[-1][0]
    last = float("inf")
    for x, y, std, name in sorted(column, key=lambda point: -point[1]):
        color = style.COLORS["sgd" if name.startswith("SGD") else "asam"]
        axes.errorbar([x], [y], [std or 0.0], color=color, marker="o", markersize=4, elinewidth=0.6)
        last = min(y, last - gap)
        axes.annotate(
            name,
            (x, y),
            (label, last),
            fontsize=7,
            ha="right" if left else "left",
            va="center",
            color=color,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5, "alpha": 0.8},
            arrowprops={"arrowstyle": "-", "linewidth": 0.4, "color": color},
        )
