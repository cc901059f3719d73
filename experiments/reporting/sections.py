"""What the report says of which result lines, in the paper's order."""

from functools import partial
from pathlib import Path
from typing import Any

from experiments import figures
from experiments.benchmarks import pareto_report, sharpness_cost, step_cost
from experiments.config import paper
from experiments.config.run_config import default_rho
from experiments.reporting import curves
from experiments.reporting.summaries import (
    NOISE_FOOTNOTE,
    Section,
    commands,
    digits_summary,
    measured_on,
    paper_summary,
)
from experiments.reporting.tables import Group, noise_table
from experiments.training import result_lines


def sections(workdir: Path, found: list[Group]) -> list[Section]:
    """Every section that there are lines for."""
    made = [*_digits(found), *_tables(found), *figures.sections(workdir)]
    made += [
        *pareto_report.sections(result_lines.read(workdir, pareto_report.KIND)[0]),
        *_benchmarks(workdir),
    ]
    return made or [Section("Nothing yet", "No result lines were found here.")]


def _is_default(group: Group) -> bool:
    """Whether a run on the digits has the method's own settings, the label noise aside."""
    radius = default_rho("digits", group["method"])
    return group["rho"] == radius and _is_plain(group)


def _is_plain(group: Group) -> bool:
    """Whether nothing but the radius is other than the method's default."""
    return group["p"] == 2.0 and group["normalization"] != "filterwise"


def _digits(found: list[Group]) -> list[Section]:
    digits = [g for g in found if g["dataset"] == "digits"]
    made = []
    for model in sorted({g["model"] for g in digits}):
        rows = [g for g in digits if g["model"] == model and _is_plain(g)]
        if len({g["label_noise"] for g in rows}) > 1:
            body = f"{noise_table(rows)}\n\n{NOISE_FOOTNOTE}"
            made.append(Section(f"Digits, {model}, by label noise", body))
    for noise in sorted({g["label_noise"] for g in digits}):
        level = [g for g in digits if g["label_noise"] == noise]
        for model in sorted({g["model"] for g in level}):
            rows = [g for g in level if g["model"] == model]
            defaults = [g for g in rows if _is_default(g)]
            name = f"{100 * noise:g}% label noise"
            tag = f"{model}_noise{100 * noise:g}"
            pictures = []
            if defaults:
                pictures.append(
                    (
                        f"digits_{tag}.png",
                        partial(curves.accuracy_curves, defaults, title=f"Digits, {name}"),
                    )
                )
            if len(rows) > len(defaults):
                title = f"Digits, {name}: each radius"
                pictures.append(
                    (f"digits_{tag}_rho.png", partial(curves.rho_curves, rows, title=title))
                )
            body = [digits_summary(rows), measured_on(rows), commands(rows)]
            made.append(Section(f"Digits, {model}, {name}", "\n\n".join(body), tuple(pictures)))
    return made


def _tables(found: list[Group]) -> list[Section]:
    cifar10 = [g for g in found if g["dataset"] == "cifar10"]
    noisy_models = {g["model"] for g in cifar10 if g["label_noise"] > 0} | {paper.TABLE3_MODEL}
    noisy = [g for g in cifar10 if g["model"] in noisy_models]
    tables = {
        "Table 1: CIFAR-10": [
            g for g in cifar10 if g["label_noise"] == 0 and g["model"] != paper.TABLE3_MODEL
        ],
        "Table 2: CIFAR-100": [g for g in found if g["dataset"] == "cifar100"],
        "Table 3: CIFAR-10 with label noise": noisy if any(g["label_noise"] for g in noisy) else [],
    }
    return [
        Section(title, "\n\n".join([paper_summary(rows), measured_on(rows), commands(rows)]))
        for title, rows in tables.items()
        if rows
    ]


def _benchmarks(workdir: Path) -> list[Section]:
    """A section for each network, batch size and dtype that was measured."""
    measured: dict[str, list[dict[str, Any]]] = {}
    for record in result_lines.read_kind(workdir, step_cost.KIND):
        title = f"{record['model']}, batch {record['batch_size']}, {record['dtype']}"
        measured.setdefault(title, []).append(record)
    return [
        _cost(f"Cost of a step: {title}", step_cost.describe(records), records[0])
        for title, records in measured.items()
    ] + [
        _cost(
            f"Cost of sharpness: {record['model']}, m = {record['m']}",
            sharpness_cost.describe(record),
            record,
        )
        for record in result_lines.read_kind(workdir, sharpness_cost.KIND)
    ]


def _cost(title: str, text: str, record: dict[str, Any]) -> Section:
    """A measurement, with the command that made it."""
    return Section(title, f"{text}\n\n```bash\n{record['command']}\n```")
