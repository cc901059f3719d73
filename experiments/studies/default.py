"""What `python -m experiments` does without a command: the rescaled network in two minutes.

The final runs of a part of `study parameterization`, at the radii that it chose on a validation
split of the network as it is; `CHOSEN` holds them, and a test compares them with its stored lines.
"""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from experiments.config.errors import ConfigError
from experiments.config.options import Options
from experiments.reporting import style, tables
from experiments.reporting.summaries import measured_on
from experiments.studies.engine import finals
from experiments.studies.operators import METHODS
from experiments.studies.parameterization import STUDIES
from experiments.studies.report import Row, analyse
from experiments.studies.study import Arm
from experiments.training import result_lines, runner

PICTURE = "rescaled.png"
BEGIN, END = "<!-- digits table: begin -->", "<!-- digits table: end -->"
AS_IS, RESCALED = "digits, mlp, 40% noise, as is", "digits, mlp, 40% noise, layer"
CHOSEN = {"SAM": 0.4, "ASAM, authors' rule": 2.8284, "ASAM": 5.6569}
NAMES = ("the network as it is", "its layers rescaled")
FOOTNOTE = (
    "Final test accuracy in percent on the digits, 40% of whose training labels were drawn anew: "
    "mean ± sample standard deviation over seeds, each with its own draw. Layers rescaled: one "
    "layer's weights are trained as 4 times a parameter, the next layer's as a quarter of one, "
    "with SGD's learning rate divided accordingly, which leaves the network and SGD's training as "
    "they are. Each radius was chosen on a validation split of the network as it is. The last "
    "column is the mean difference, seed by seed, with its 95% interval."
)
STUDY = dataclasses.replace(
    STUDIES["parameterization"].only([AS_IS, RESCALED], ["SGD"]),
    arms=(
        Arm("SGD", dict(method="sgd")),
        *(Arm(name, METHODS[name] | dict(rho=rho)) for name, rho in CHOSEN.items()),
    ),
)


def run(options: Options) -> None:
    """Trains what is not finished yet, prints the table and draws the picture."""
    runs = finals(STUDY, {})
    print(f"Digits, 40% label noise: {len(runs)} runs of {runs[0].epochs} epochs.", flush=True)
    rows = analyse(STUDY, runner.run_all(runs, options))
    draw(rows, options.workdir / PICTURE)
    print(f"\n{table(rows)}\n\n{FOOTNOTE}\n")
    lines = options.workdir / result_lines.RESULTS_NAME
    print(f"Result lines: {lines}; picture: {options.workdir / PICTURE}")


def _pairs(rows: list[Row]) -> dict[str, tuple[tables.Group, tables.Group]]:
    """The groups of each method, as is and rescaled."""
    of = {(row.arm.name, row.problem.name): row.group for row in rows}
    return {arm.name: (of[arm.name, AS_IS], of[arm.name, RESCALED]) for arm in STUDY.arms}


def table(rows: list[Row]) -> str:
    """A row for each method."""
    made = []
    for name, groups in _pairs(rows).items():
        accuracies = [tables.format_mean_std(group.final) for group in groups]
        rho, gain = tables.radius(groups[0]), tables.paired(groups[1], groups[0])
        made.append([name, rho, *accuracies, gain])
    return tables.markdown(["method", "rho", *NAMES, "rescaled minus as is"], made)


def draw(rows: list[Row], path: Path) -> None:
    """Two bars a method."""
    canvas, (axes,) = style.panels(1, 1, (5.6, 3.4))
    pairs = _pairs(rows)
    for number, label in enumerate(NAMES):
        groups = [pair[number] for pair in pairs.values()]
        at, means = np.arange(len(pairs)) + 0.4 * number - 0.2, [group.mean for group in groups]
        look: Any = dict(alpha=1.0 - 0.5 * number, capsize=3, label=label)
        look |= dict(color=[style.COLORS[group["method"]] for group in groups])
        axes.bar(at, means, 0.38, yerr=[group.std for group in groups], **look)
    axes.set_xticks(range(len(pairs)), [name.replace(", ", ",\n") for name in pairs])
    axes.set_ylim(0, 105)
    axes.set_ylabel("final test accuracy (%)")
    axes.set_title("digits, 40% label noise: full colour as it is, pale rescaled", fontsize=10)
    style.save(canvas, path)


def write_readme(workdir: Path, readme: Path) -> None:
    """Replaces what stands between the marks in `readme`, from result lines alone."""
    text = readme.read_text()
    if BEGIN not in text or END not in text:
        raise ConfigError(f"readme {str(readme)!r} has no lines {BEGIN!r} and {END!r}.")
    platforms = tables.by_platform(result_lines.read(workdir)[0])
    rows = analyse(STUDY, next(iter(platforms.values()), []))
    wanted, held = len(finals(STUDY, {})), sum(len(row.group.runs) for row in rows)
    if held < wanted:
        raise ConfigError(
            f"workdir {str(workdir)!r} holds {held} of the default job's {wanted} runs; finish "
            "them first: python -m experiments --workdir ..."
        )
    made = f"{table(rows)}\n\n{FOOTNOTE} {measured_on([row.group for row in rows])}"
    head, tail = text.split(BEGIN)[0], text.split(END)[1]
    readme.write_text(f"{head}{BEGIN}\n{made}\n{END}{tail}")
