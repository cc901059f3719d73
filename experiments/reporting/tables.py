"""Markdown tables from result lines: runs that differ in their seed alone make one row."""

import dataclasses
from collections.abc import Iterable
from typing import Any

from experiments.config import paper
from experiments.config.defaults import PAPER_EPOCHS, default_rho
from experiments.config.run_config import LATER, RunConfig
from experiments.reporting.mean_std import format_mean_std, mean_std
from experiments.training import result_lines

Record = dict[str, Any]
_SHARED = tuple(
    [field.name for field in dataclasses.fields(RunConfig) if field.name != "seed"]
    + ["dataset_fingerprint"]
)
# The method without a perturbation is its base optimizer.
OPTIMIZER_NAMES = {"sgd": paper.METHOD_NAMES["sgd"], "adamw": "AdamW", "muon": "Muon"}
# Where rows of several methods differ in these, the method says so already.
_OF_METHOD = ("eta", "adapt", "p", "normalization")
# What `method_name` and a column of its own say of a row in every table.
_SAID = frozenset({"method", "p", "normalization", "rho", "epochs"})


@dataclasses.dataclass(frozen=True)
class Group:
    """The runs of one configuration, seed by seed."""

    runs: tuple[Record, ...]

    def __getitem__(self, name: str) -> Any:
        return self.runs[0][name]

    def setting(self, name: str) -> Any:
        """A value of the configuration; what an old line does not name had its default."""
        if name == "platform":
            return result_lines.platform(self.runs[0])
        return self.runs[0].get(name, LATER.get(name))

    @property
    def final(self) -> list[float]:
        return [run["test_accuracy_final"] for run in self.runs]

    @property
    def best(self) -> list[float]:
        return [run["test_accuracy_max"] for run in self.runs]

    @property
    def wall_seconds(self) -> float:
        return sum(run["wall_seconds"] / run.get("seeds_in_program", 1) for run in self.runs)

    @property
    def reduced(self) -> bool:
        """Whether this is less than the paper trained: fewer images or epochs."""
        return self["subset"] is not None or self["epochs"] < PAPER_EPOCHS[self["method"]]


def groups(records: list[Record]) -> list[Group]:
    """Runs grouped by all but their seed; groups in the order of their first run."""
    found: dict[tuple, list[Record]] = {}
    for record in records:
        key = *(record.get(name) for name in _SHARED), result_lines.platform(record)
        found.setdefault(key, []).append(record)
    return [Group(tuple(sorted(runs, key=lambda r: r["seed"]))) for runs in found.values()]


def by_platform(records: list[Record]) -> dict[str, list[Record]]:
    """The lines of each kind of device, the CPU's first: numbers of two kinds are never mixed."""
    found: dict[str, list[Record]] = {}
    for record in sorted(records, key=lambda r: result_lines.platform(r) != "cpu"):
        found.setdefault(result_lines.platform(record), []).append(record)
    return found


def by_method(found: list[Group]) -> list[Group]:
    """The same groups: SGD, SAM, ASAM, and by rho within each."""
    return sorted(found, key=lambda g: (paper.METHODS.index(g["method"]), g["rho"]))


def differing(found: list[Group], said: Iterable[str]) -> list[str]:
    """What the rows differ in beyond what is said of each anyway."""
    names = []
    for name in (*_SHARED, "platform"):
        if name in said:
            continue
        parts = [found]
        if name in _OF_METHOD:
            methods = {group["method"] for group in found}
            parts = [[g for g in found if g["method"] == method] for method in methods]
        if any(len({group.setting(name) for group in part}) > 1 for part in parts):
            names.append(name)
    return names


def said_of(name: str, group: Group) -> str:
    """A setting in a column of its own, or in a heading; exact, so that no two look alike."""
    value = group.setting(name)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value is None else str(value)


def _with_what_differs(
    header: list[str], rows: list[list[str]], found: list[Group], said: Iterable[str]
) -> str:
    """The table with a column for each setting in which rows differ unsaid."""
    names = differing(found, said)
    words = [name.replace("_", " ") for name in names]
    cells = [[said_of(name, group) for name in names] for group in found]
    return markdown([*header, *words], [row + more for row, more in zip(rows, cells, strict=True)])


def _radius(group: Group) -> str:
    if group["method"] == "sgd":
        return "-"
    short = f"{group['rho']:g}"
    return short if float(short) == group["rho"] else repr(group["rho"])


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
    name = paper.METHOD_NAMES[group["method"]]
    if group["method"] == "sgd":
        name = OPTIMIZER_NAMES[group.setting("optimizer")]
    extras = []
    if group["method"] == "asam" and group["normalization"] != "elementwise":
        extras.append(f"{group['normalization']}")
    if group["p"] != 2.0:
        extras.append(f"p = {group['p']}")
    return f"{name} ({', '.join(extras)})" if extras else name


def digits_table(found: list[Group]) -> str:
    """Method, rho, accuracies: for groups of one data set and noise level."""
    found = by_method(found)
    rows = [
        [
            method_name(group),
            _radius(group),
            str(group["epochs"]),
            format_mean_std(group.final),
            format_mean_std(group.best),
            str(len(group.runs)),
        ]
        for group in found
    ]
    header = ["method", "rho", "epochs", "final epoch, %", "best epoch, %", "runs"]
    return _with_what_differs(header, rows, found, _SAID)


def noise_table(found: list[Group]) -> str:
    """Final accuracy by label noise, each method at its own radius and at the best of a sweep."""
    levels = sorted({group["label_noise"] for group in found})
    rows = []
    for noise in levels:
        level = [g for g in found if g["label_noise"] == noise]
        row = [f"{100 * noise:g}%"]
        for method in paper.METHODS:
            of_method = [g for g in level if g["method"] == method]
            own = [g for g in of_method if g["rho"] == default_rho("digits", method)]
            row.append(format_mean_std(own[0].final) if own else "-")
            if method != "sgd":
                row.append(_best_radius(of_method))
        rows.append(row)
    header = ["label noise", "SGD, %"]
    for method in ("sam", "asam"):
        name, rho = paper.METHOD_NAMES[method], default_rho("digits", method)
        header += [f"{name}, rho {rho:g}, %", f"{name} at its best rho, %"]
    return markdown(header, rows)


def _best_radius(of_method: list[Group]) -> str:
    """The group with the largest mean final accuracy, with its radius; a dash without a sweep."""
    if len(of_method) < 2:
        return "-"
    best = max(of_method, key=lambda g: mean_std(g.final)[0])
    return f"{format_mean_std(best.final)} ({best['rho']:g})"


def paper_table(found: list[Group]) -> str:
    """Rows of Tables 1 to 3: ours beside the paper's."""
    rows = []
    order = [*paper.MODEL_NAMES, paper.TABLE3_MODEL]

    def place(group: Group):
        model = group["model"]
        known = order.index(model) if model in order else len(order)
        return (known, model, group["label_noise"], paper.METHODS.index(group["method"]))

    found = sorted(found, key=lambda g: (*place(g), g["rho"]))
    for group in found:
        images = group["train_images"]
        rows.append(
            [
                paper.MODEL_NAMES.get(group["model"], group["model"]),
                f"{100 * group['label_noise']:g}%",
                method_name(group),
                _radius(group),
                f"{images:,}",
                str(group["epochs"]) + (" (reduced)" if group.reduced else ""),
                format_mean_std(group.best),
                format_mean_std(group.final),
                str(len(group.runs)),
                paper.format_entry(
                    paper.entry(
                        group["dataset"], group["model"], group["method"], group["label_noise"]
                    )
                ),
            ]
        )
    header = [
        "model",
        "label noise",
        "method",
        "rho",
        "images",
        "epochs",
        "best epoch, %",
        "final epoch, %",
        "runs",
        "the paper's best, %",
    ]
    return _with_what_differs(header, rows, found, _SAID | {"model", "label_noise", "subset"})
