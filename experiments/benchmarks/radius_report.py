"""The table of `benchmark radius`, from its result lines alone."""

import statistics
from collections.abc import Iterable
from typing import Any

from experiments.config.run_config import LATER
from experiments.reporting.mean_std import format_mean_std
from experiments.reporting.summaries import Section, commands, measured_on
from experiments.reporting.tables import Group, groups, markdown

KIND = "radius_run"
RULES = ("rise", "relative", "linear", "departure")
TITLE = "A radius that nobody has to tune"
LEAST_GAIN = 1.0  # points
FOOTNOTE = (
    "ASAM. Final test accuracy, mean ± sample standard deviation over seeds; in brackets the share "
    "of the best constant's gain over SGD that is kept, where that gain is at least "
    f"{LEAST_GAIN:g} point: of a smaller one a share is noise. The best constant is that of "
    "{radii} which a validation split chose for each problem; the constant 1 is no choice. A rule "
    "asks `radius_profile` ten times in a training and has one target for all problems, that of "
    "{targets} whose worst share on the validation splits is the best: {chosen}. Rise: the loss of "
    "a batch rises by the target, in nats; relative: by that share of itself; linear: its "
    "linearisation does; departure: the loss rises by the target times its linearisation. A rule's "
    "whole training takes {cost} times the gradients of a constant radius. The test set chose "
    "nothing."
)
Place = tuple[str, str, float]
Tuned = dict[Place, dict[tuple[str, float], float]]


def place(line: dict[str, Any]) -> Place:
    """The problem of a line: data set, network, label noise."""
    return line["dataset"], line["model"], line["label_noise"]


def row(line: dict[str, Any]) -> tuple[str, float]:
    """What chose a line's radius, and to what value."""
    if line["method"] == "sgd":
        return "sgd", 0.0
    rule = line.get("radius_rule", LATER["radius_rule"])
    return rule, line["rho"] if rule == "fixed" else line["target"]


def tuned(lines: Iterable[dict[str, Any]]) -> Tuned:
    """The accuracies on the validation splits, by problem and by row."""
    scores: dict[Place, dict[tuple[str, float], list[float]]] = {}
    for line in lines:
        if line.get("validation"):
            of_problem = scores.setdefault(place(line), {})
            of_problem.setdefault(row(line), []).append(line["test_accuracy_final"])
    return {
        where: {what: statistics.mean(values) for what, values in rows.items()}
        for where, rows in scores.items()
    }


def chosen_radius(rows: dict[tuple[str, float], float]) -> float:
    """The constant with the best accuracy on one problem's validation split; ties: the smaller."""
    return max((value, -rho) for (rule, rho), value in rows.items() if rule == "fixed")[1] * -1


def shares(rows: dict[tuple[str, float], float]) -> dict[tuple[str, float], float]:
    """What each row keeps of the best constant's gain over SGD; nothing where that is too small."""
    plain = rows["sgd", 0.0]
    gain = rows["fixed", chosen_radius(rows)] - plain
    if gain < LEAST_GAIN:
        return {}
    return {what: (value - plain) / gain for what, value in rows.items()}


def chosen_targets(found: Tuned) -> dict[str, float]:
    """Each rule's target with the best worst share over all problems; ties: the smaller."""
    by_problem = [kept for kept in map(shares, found.values()) if kept]
    best: dict[str, tuple[float, float]] = {}
    for what in dict.fromkeys(key for kept in by_problem for key in kept):
        rule, target = what
        if rule in RULES and all(what in kept for kept in by_problem):
            value = min(kept[what] for kept in by_problem), -target
            best[rule] = max(best.get(rule, value), value)
    return {rule: -target for rule, (_, target) in best.items()}


def sections(records: list[dict[str, Any]]) -> list[Section]:
    """One table over all problems, if there are final runs."""
    found = groups(records)
    final = [group for group in found if not group.runs[0].get("validation")]
    if not final:
        return []
    scores = tuned(records)
    targets = chosen_targets(scores)
    ruled = [g for g in final if g.setting("radius_rule") != "fixed"]
    dearest = max((g.runs[0]["gradients_per_step"] / 2 for g in ruled), default=1.0)
    tried = {
        rule: len({what[1] for rows in scores.values() for what in rows if what[0] == rule})
        for rule in ("fixed", *targets)
    }
    footnote = FOOTNOTE.format(
        radii=_number(tried["fixed"]),
        targets=" to ".join(
            dict.fromkeys(_number(n) for n in sorted(tried[rule] for rule in targets))
        )
        or "none",
        chosen=", ".join(f"{rule} {target:g}" for rule, target in targets.items()),
        cost=f"at most {dearest:.3f}",
    )
    body = [table(final, scores), footnote, measured_on(found), commands(final)]
    return [Section(TITLE, "\n\n".join(body))]


def table(final: list[Group], scores: Tuned) -> str:
    """A row for each problem and level of noise, and the worst and the mean of the shares."""
    targets = chosen_targets(scores)
    columns = {"constant 1": ("fixed", 1.0)} | {rule: (rule, t) for rule, t in targets.items()}
    rows, kept = [], {name: [] for name in columns}
    for where in sorted({place(group.runs[0]) for group in final}):
        of = {row(g.runs[0]): g for g in final if place(g.runs[0]) == where}
        best = "fixed", chosen_radius(scores[where])
        if best not in of or ("sgd", 0.0) not in of:
            continue
        means = {what: statistics.mean(group.final) for what, group in of.items()}
        gain = means[best] - means["sgd", 0.0]
        cells = []
        for name, what in columns.items():
            cell = format_mean_std(of[what].final) if what in of else "-"
            if what in of and gain >= LEAST_GAIN:
                share = (means[what] - means["sgd", 0.0]) / gain
                kept[name].append(share)
                cell += f" ({share:.2f})"
            cells.append(cell)
        problem = f"{where[0]}, {where[1]}, {100 * where[2]:g}% noise"
        constant = f"{format_mean_std(of[best].final)} (rho {best[1]:g})"
        rows.append([problem, format_mean_std(of["sgd", 0.0].final), constant, *cells])
    for word, of_all in (("worst share", min), ("mean share", statistics.mean)):
        rows.append([word, "", "", *(f"{of_all(s):.2f}" if s else "-" for s in kept.values())])
    header = ["problem", "SGD, %", "best constant, %", "constant 1, %"]
    header += [f"{rule} {target:g}, %" for rule, target in targets.items()]
    return markdown(header, rows)


def _number(count: int) -> str:
    words = ("none", "one", "two", "three", "four", "five", "six")
    return words[count] if count < len(words) else str(count)
