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
FOOTNOTE = (
    "ASAM. Final test accuracy, mean ± sample standard deviation over seeds; in brackets the share "
    "of the gain over SGD that is kept, where the best constant's is 1. The best constant is that "
    "of {radii} which a validation split chose for each problem; the constant 1 was not chosen. "
    "A rule asks `radius_profile` ten times in a training and has one target for all problems, the "
    "one of {targets} with the best mean accuracy on all validation splits: {chosen}. Rise: the "
    "loss of a batch rises by the target, in nats; relative: by that share of itself; linear: its "
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


def chosen_targets(found: Tuned) -> dict[str, float]:
    """Each rule's target with the best mean accuracy over all problems; ties: the smaller."""
    best: dict[str, tuple[float, float]] = {}
    for what in dict.fromkeys(key for rows in found.values() for key in rows):
        rule, target = what
        if rule in RULES and all(what in rows for rows in found.values()):
            value = statistics.mean(rows[what] for rows in found.values()), -target
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
    names = ["constant 1", *targets]
    rows, shares = [], {name: [] for name in names}
    for where in dict.fromkeys(place(group.runs[0]) for group in final):
        of = {row(g.runs[0]): g for g in final if place(g.runs[0]) == where}
        best = of.get(("fixed", chosen_radius(scores[where]))) if where in scores else None
        plain = of.get(("sgd", 0.0))
        if best is None or plain is None:
            continue
        wanted = [of.get(("fixed", 1.0)), *(of.get((rule, targets[rule])) for rule in targets)]
        gain = statistics.mean(best.final) - statistics.mean(plain.final)
        cells = []
        for name, group in zip(names, wanted, strict=True):
            if group is None:
                cells.append("-")
                continue
            kept = (statistics.mean(group.final) - statistics.mean(plain.final)) / gain
            shares[name].append(kept)
            cells.append(f"{format_mean_std(group.final)} ({kept:.2f})")
        name = f"{where[0]}, {where[1]}, {100 * where[2]:g}% noise"
        constant = f"{format_mean_std(best.final)} (rho {best['rho']:g})"
        rows.append([name, format_mean_std(plain.final), constant, *cells])
    for word, of_all in (("worst share", min), ("mean share", statistics.mean)):
        rows.append([word, "", "", *(f"{of_all(s):.2f}" if s else "-" for s in shares.values())])
    header = ["problem", "SGD, %", "best constant, %", names[0] + ", %"]
    header += [f"{rule} {target:g}, %" for rule, target in targets.items()]
    return markdown(header, rows)


def _number(count: int) -> str:
    words = ("none", "one", "two", "three", "four", "five", "six")
    return words[count] if count < len(words) else str(count)
