"""Result lines in groups and tables: runs that differ in their seed alone make one row."""

import dataclasses
import statistics
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from scipy import stats

from experiments.config import paper
from experiments.config.run import FIELDS, LATER
from experiments.training import result_lines
from experiments.training.resolve import PAPER_EPOCHS
from experiments.training.result_lines import Record

# A run with a draw of its own has another data_seed for each seed.
_SHARED = (*(n for n in FIELDS if n not in ("seed", "data_seed")), "own_draw", "platform")
_SHARED = (*_SHARED, "dataset_fingerprint")
# The method without a perturbation is its base optimizer.
OPTIMIZER_NAMES = {"sgd": "SGD", "adamw": "AdamW", "muon": "Muon"}
# Where rows of several methods differ in these, the method says so already.
_OF_METHOD = ("eta", "adapt", "p", "normalization")


def setting(record: Record, name: str) -> Any:
    """A value of a line's run; what an older line does not name had its default."""
    if name == "platform":
        return result_lines.platform(record)
    if name == "own_draw":
        return record.get("data_seed") is not None
    return record.get(name, LATER.get(name))


@dataclasses.dataclass(frozen=True)
class Group:
    """The runs of one configuration, seed by seed."""

    runs: tuple[Record, ...]

    def __getitem__(self, name: str) -> Any:
        return setting(self.runs[0], name)

    @property
    def final(self) -> list[float]:
        return [run["test_accuracy_final"] for run in self.runs]

    @property
    def mean(self) -> float:
        """Of the final accuracies."""
        return statistics.mean(self.final)

    @property
    def std(self) -> float:
        """Of the final accuracies: the sample's, 0 for a single run."""
        return float(np.std(self.final, ddof=1)) if len(self.runs) > 1 else 0.0

    @property
    def best(self) -> list[float]:
        return [run["test_accuracy_max"] for run in self.runs]

    @property
    def fit(self) -> list[float]:
        """Training accuracy in the last epoch, on the labels as given."""
        return [run["metrics"]["train_accuracy"][-1] for run in self.runs]

    @property
    def wall_seconds(self) -> float:
        return sum(run["wall_seconds"] / run.get("seeds_in_program", 1) for run in self.runs)

    @property
    def reduced(self) -> bool:
        """Whether this is less than the paper trained: fewer images or epochs."""
        return self["subset"] is not None or self["epochs"] < PAPER_EPOCHS[self["method"]]


def grouped(records: Iterable[Any], key: Callable[[Any], Any]) -> dict[Any, list[Any]]:
    """Lines or rows by what `key` says of them, in the order of the first of each."""
    found: dict[Any, list[Any]] = {}
    for record in records:
        found.setdefault(key(record), []).append(record)
    return found


def groups(records: Iterable[Record]) -> list[Group]:
    """Runs grouped by all but their seed; groups in the order of their first run."""
    found = grouped(records, lambda line: tuple(str(setting(line, name)) for name in _SHARED))
    return [Group(tuple(sorted(runs, key=lambda run: run["seed"]))) for runs in found.values()]


def by_platform(records: list[Record]) -> dict[str, list[Record]]:
    """The lines of each kind of device, the CPU's first: numbers of two kinds are never mixed."""
    found = grouped(records, result_lines.platform)
    return dict(sorted(found.items(), key=lambda one: one[0] != "cpu"))


def format_mean_std(values: list[float], digits: int = 2) -> str:
    """'92.94 ± 0.31' with the sample standard deviation, or '92.94' for a single value."""
    mean = f"{np.mean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {np.std(values, ddof=1):.{digits}f}"


def paired(group: Group, other: Group, field: str = "test_accuracy_final", digits: int = 2) -> str:
    """'+1.20 [0.10, 2.30]': the mean difference over common seeds, and its 95% interval."""
    ours = {run["seed"]: run[field] for run in group.runs}
    theirs = {run["seed"]: run[field] for run in other.runs}
    differences = np.array([ours[seed] - theirs[seed] for seed in ours if seed in theirs])
    if not len(differences):
        return "-"
    mean = differences.mean()
    if len(differences) == 1:
        return f"{mean:+.{digits}f}"
    half = stats.t.ppf(0.975, len(differences) - 1) * stats.sem(differences)
    return f"{mean:+.{digits}f} [{mean - half:.{digits}f}, {mean + half:.{digits}f}]"


def differing(found: list[Group], said: Iterable[str]) -> list[str]:
    """What the rows differ in beyond what is said of each anyway."""
    names = []
    for name in _SHARED:
        if name in said:
            continue
        parts = [found]
        if name in _OF_METHOD:
            methods = {group["method"] for group in found}
            parts = [[g for g in found if g["method"] == method] for method in methods]
        if any(len({group[name] for group in part}) > 1 for part in parts):
            names.append(name)
    return names


def markdown(header: list[str], rows: list[list[str]]) -> str:
    """A table with columns of equal width, so that it reads well as plain text, too."""
    table = [header, *rows]
    widths = [max(len(row[i]) for row in table) for i in range(len(header))]
    lines = [
        "| " + " | ".join(cell.ljust(w) for cell, w in zip(r, widths, strict=True)) + " |"
        for r in table
    ]
    rule = "| " + " | ".join("-" * width for width in widths) + " |"
    return "\n".join([lines[0], rule, *lines[1:]])


def method_name(group: Group) -> str:
    """'ASAM', with what is not the default of that method behind it."""
    if group["method"] == "sgd":
        return OPTIMIZER_NAMES[group["optimizer"]]
    extras = []
    if group["method"] == "asam" and group["normalization"] != "elementwise":
        extras.append(group["normalization"])
    if group["p"] != 2.0:
        extras.append(f"p = {group['p']}")
    name = paper.METHOD_NAMES[group["method"]]
    return f"{name} ({', '.join(extras)})" if extras else name


def radius(group: Group) -> str:
    """Exact, so that no two look alike; a dash for what has none."""
    if group["method"] == "sgd":
        return "-"
    short = f"{group['rho']:g}"
    return short if float(short) == group["rho"] else repr(group["rho"])


def runs_table(found: list[Group]) -> str:
    """A row for each group, the paper's number beside ours where it has one.

    Every setting in which rows differ has a column, so that a field or a data set that is new needs
    nothing here.
    """
    found = sorted(found, key=_place)
    numbers = [paper.entry(group) for group in found]
    rows = [
        [
            paper.MODEL_NAMES.get(group["model"], group["model"]),
            f"{100 * group['label_noise']:g}%",
            method_name(group),
            radius(group),
            f"{group['train_images']:,}",
            str(group["epochs"]) + (" (reduced)" if number and group.reduced else ""),
            format_mean_std(group.final),
            format_mean_std(group.best),
            str(len(group.runs)),
            number or "-",
        ]
        for group, number in zip(found, numbers, strict=True)
    ]
    header = ["model", "label noise", "method", "rho", "images", "epochs"]
    header += ["final epoch, %", "best epoch, %", "runs", "the paper's best, %"]
    if not any(numbers):
        header, rows = header[:-1], [row[:-1] for row in rows]
    said = {"dataset", "dataset_fingerprint", "model", "label_noise", "method", "rho", "epochs"}
    names = differing(found, said | {"p", "normalization", "subset"})
    cells = [[_word(group[name]) for name in names] for group in found]
    words = [name.replace("_", " ") for name in names]
    return markdown([*header, *words], [row + more for row, more in zip(rows, cells, strict=True)])


def _place(group: Group) -> tuple:
    known = [*paper.MODEL_NAMES, *(m for table in paper.TABLES.values() for m in table.models)]
    model = group["model"]
    number = known.index(model) if model in known else len(known)
    method = paper.METHODS.index(group["method"])
    return (number, model, group["label_noise"], method, group["rho"])


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value is None else str(value)
