"""What `python -m experiments` does without a command: the rescaled network in two minutes.

The final runs of a part of `study parameterization`, at the radii that it chose on a validation
split of the network as it is; `CHOSEN` holds them, and a test compares them with its stored lines.
"""

import dataclasses
from pathlib import Path

import numpy as np

from experiments.config.errors import ConfigError
from experiments.config.options import Options
from experiments.reporting import style
from experiments.reporting.summaries import measured_on
from experiments.reporting.tables import by_platform, format_mean_std, markdown, paired, radius
from experiments.studies.engine import Choices, finals
from experiments.studies.parameterization import METHODS, STUDIES
from experiments.studies.report import Row, analyse
from experiments.studies.study import Study
from experiments.training import result_lines, runner

PICTURE = "rescaled.png"
BEGIN, END = "<!-- digits table: begin -->", "<!-- digits table: end -->"
AS_IS, RESCALED = "digits, mlp, 40% noise, as is", "digits, mlp, 40% noise, layer"
CHOSEN = {"SAM": 0.4, "ASAM": 2.8284, "ASAM, every leaf, eta 0": 5.6569}
NAMES = {AS_IS: "the network as it is", RESCALED: "its layers rescaled"}
FOOTNOTE = (
    "Final test accuracy in percent on the digits, 40% of whose training labels were drawn anew: "
    "mean ± sample standard deviation over seeds, each with its own draw. Layers rescaled: one "
    "layer's weights are trained as 4 times a parameter, the next layer's as a quarter of one, "
    "with SGD's learning rate divided accordingly, which leaves the network and SGD's training as "
    "they are. Each radius was chosen on a validation split of the network as it is. The last "
    "column is the mean difference, seed by seed, with its 95% interval."
)


def job() -> tuple[Study, Choices]:
    """The part of the study, and the radii for both of its problems."""
    whole = STUDIES["parameterization"]
    carried = {f"{name}, rho carried over": name for name in METHODS}
    part = whole.only([AS_IS, RESCALED], ["SGD", *carried])
    choices = {
        (problem.name, arm): {"rho": CHOSEN[name]}
        for problem in part.problems
        for arm, name in carried.items()
    }
    return dataclasses.replace(part, tuning_seeds=0), choices


def run(options: Options) -> None:
    """Trains what is not finished yet, prints the table and draws the picture."""
    study, choices = job()
    runs = finals(study, choices)
    print(f"Digits, 40% label noise: {len(runs)} runs of {runs[0].epochs} epochs.", flush=True)
    rows = _rows(runner.run_all(runs, options))
    draw(rows, options.workdir / PICTURE)
    print(f"\n{table(rows)}\n\n{FOOTNOTE}\n")
    lines = options.workdir / result_lines.RESULTS_NAME
    print(f"Result lines: {lines}; picture: {options.workdir / PICTURE}")


def _rows(lines: list[result_lines.Record]) -> list[Row]:
    study, choices = job()
    return analyse(study, lines, choices)


def _cells(rows: list[Row]) -> dict[str, dict[str, Row]]:
    """Method -> problem -> row."""
    found: dict[str, dict[str, Row]] = {}
    for row in rows:
        name = row.arm.name.removesuffix(", rho carried over")
        found.setdefault(name, {})[row.problem.name] = row
    return found


def table(rows: list[Row]) -> str:
    """A row for each method."""
    made = []
    for name, of in _cells(rows).items():
        groups = [of[problem].group for problem in (AS_IS, RESCALED)]
        accuracies = [format_mean_std(group.final) for group in groups]
        made.append([name, radius(groups[0]), *accuracies, paired(groups[1], groups[0])])
    return markdown(["method", "rho", *NAMES.values(), "rescaled minus as is"], made)


def draw(rows: list[Row], path: Path) -> None:
    """Two bars a method."""
    canvas, axes = style.figure((5.6, 3.4))
    cells = _cells(rows)
    for number, (problem, label) in enumerate(NAMES.items()):
        finals_of = [of[problem].group.final for of in cells.values()]
        colors = [style.COLORS[of[problem].group["method"]] for of in cells.values()]
        axes.bar(
            np.arange(len(cells)) + 0.4 * number - 0.2,
            [np.mean(values) for values in finals_of],
            0.38,
            yerr=[np.std(values, ddof=1) if len(values) > 1 else 0.0 for values in finals_of],
            color=colors,
            alpha=1.0 - 0.5 * number,
            capsize=3,
            label=label,
        )
    axes.set_xticks(range(len(cells)), [name.replace(", every", ",\nevery") for name in cells])
    axes.set_ylim(0, 105)
    axes.set_ylabel("final test accuracy (%)")
    axes.set_title("digits, 40% label noise: full colour as it is, pale rescaled", fontsize=10)
    style.save(canvas, path)


def write_readme(workdir: Path, readme: Path) -> None:
    """Replaces what stands between the marks in `readme`, from result lines alone."""
    text = readme.read_text()
    if BEGIN not in text or END not in text:
        raise ConfigError(f"readme {str(readme)!r} has no lines {BEGIN!r} and {END!r}.")
    platforms = by_platform(result_lines.read(workdir)[0])
    rows = _rows(next(iter(platforms.values()), []))
    study, choices = job()
    wanted, held = len(finals(study, choices)), sum(len(row.group.runs) for row in rows)
    if held < wanted:
        raise ConfigError(
            f"workdir {str(workdir)!r} holds {held} of the default job's {wanted} runs; finish "
            "them first: python -m experiments --workdir ..."
        )
    made = f"{table(rows)}\n\n{FOOTNOTE} {measured_on([row.group for row in rows])}"
    head, tail = text.split(BEGIN)[0], text.split(END)[1]
    readme.write_text(f"{head}{BEGIN}\n{made}\n{END}{tail}")
