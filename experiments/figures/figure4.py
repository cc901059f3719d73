"""Figure 4: test accuracy of ASAM over rho, for two norms and two normalizations.

The digits' default thins the paper's grid out where nothing changes, and trains on noisy labels,
without which all radii come to the same.
"""

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from experiments.config.options import Options
from experiments.config.paper import APPENDIX_B_CUTOUT
from experiments.config.run import Run
from experiments.figures import figure_lines
from experiments.figures.figure_lines import Record
from experiments.reporting import style
from experiments.reporting.summaries import Section
from experiments.reporting.tables import Group, format_mean_std, groups
from experiments.training import result_lines, runner

KIND, PICTURE = "figure4", "figure4.png"
# The paper names both ends and steps of 1, 2, 5.
PAPER_RHOS = tuple(
    round(digit * 10.0**power, 5)
    for power in range(-5, 1)
    for digit in (1, 2, 5)
    if 5e-5 <= digit * 10.0**power <= 2
)
DIGITS_RHOS = (0.00005, 0.005, 0.05, 0.2, 0.5, 1.0, 2.0)
# What differs on the digits is noise, without which all radii come to the same.
DIGITS = dict(label_noise=0.4)
CIFAR = dict(model="wrn16_8", cutout=APPENDIX_B_CUTOUT)
# (normalization, p) -> name, colour, marker.
REGIONS = {
    ("elementwise", "inf"): ("element-wise, $p = \\infty$", "#e69f00", "s"),
    ("elementwise", 2.0): ("element-wise, $p = 2$", style.COLORS["asam"], "o"),
    ("filterwise", 2.0): ("filter-wise, $p = 2$", "#009e73", "^"),
}


@dataclasses.dataclass(frozen=True)
class Grid:
    """Which networks are trained, and at which radii."""

    dataset: str = "digits"
    """digits, cifar10 or cifar100."""
    model: str | None = None
    """See the command models; else the data set's own."""
    rhos: tuple[float, ...] = ()
    """Radii; else the data set's own."""
    label_noise: float | None = None
    """Share of labels drawn anew; else the data set's own."""
    seeds: int = 3
    """How many seeds: 0 to N - 1."""
    epochs: int | None = None
    """Passes over the training images; else the paper's."""
    subset: int | None = None
    """Train on the first so many images only."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """To compute in."""

    def runs(self) -> list[Run]:
        """SGD, and ASAM at every rho in each region, seed by seed."""
        small = self.dataset == "digits"
        values: dict[str, Any] = dict(DIGITS if small else CIFAR)
        given = {n: v for n, v in vars(self).items() if v is not None}
        values |= {n: v for n, v in given.items() if n not in ("rhos", "seeds")}
        regions = [
            dict(method="asam", rho=rho, p=float(p), normalization=name)
            for name, p in REGIONS
            for rho in self.rhos or (DIGITS_RHOS if small else PAPER_RHOS)
        ]
        rows: list[dict[str, Any]] = [dict(method="sgd"), *regions]
        return [Run(**values, **row, seed=seed) for seed in range(self.seeds) for row in rows]


def run(grid: Grid, options: Options) -> None:
    """Trains what is not finished, draws from the lines of these runs."""
    records = runner.run_all(grid.runs(), options, kind=KIND)
    draw(groups(records), options.workdir / PICTURE)
    print(_sentences(groups(records)))
    print(f"Picture: {options.workdir / PICTURE}")


def draw(found: list[Group], path: Path) -> None:
    """Mean and standard deviation over seeds at each rho; SGD as a level band."""
    canvas, axes = style.figure((5.0, 4.2))
    for region, (name, color, marker) in REGIONS.items():
        rows = _of(found, region)
        means = [float(np.mean(g.final)) for g in rows]
        axes.errorbar(
            [g["rho"] for g in rows],
            means,
            [_std(g) for g in rows],
            color=color,
            label=name,
            marker=marker,
            markersize=5,
            capsize=3,
        )
    for group in found:
        if group["method"] == "sgd":
            mean, std, color = float(np.mean(group.final)), _std(group), style.COLORS["sgd"]
            axes.axhline(mean, color=color, linestyle="--", label="SGD ($\\rho = 0$)")
            axes.axhspan(mean - std, mean + std, color=color, alpha=0.2, linewidth=0)
    axes.set_xscale("log")
    axes.set_xlabel("radius $\\rho$ (no unit)")
    axes.set_ylabel("final test accuracy (%)")
    first = found[0]
    noise = f", {100 * first['label_noise']:g}% label noise" if first["label_noise"] else ""
    seeds = max(len(group.runs) for group in found)
    axes.set_title(f"{first['dataset']}, {first['model']}{noise}, {seeds} seeds")
    canvas.legend(loc="outside lower center", ncols=2, frameon=False)
    style.save(canvas, path)


def _of(found: list[Group], region: tuple[str, float | str]) -> list[Group]:
    rows = [g for g in found if (g["normalization"], g["p"]) == region and g["method"] == "asam"]
    return sorted(rows, key=lambda g: g["rho"])


def _std(group: Group) -> float:
    return float(np.std(group.final, ddof=1)) if len(group.runs) > 1 else 0.0


def _sentences(found: list[Group]) -> str:
    parts = []
    for (normalization, p), _ in REGIONS.items():
        rows = _of(found, (normalization, p))
        if rows:
            best = max(rows, key=lambda g: float(np.mean(g.final)))
            accuracy = format_mean_std(best.final)
            parts.append(
                f"{normalization} with p = {p if p == 'inf' else f'{p:g}'} is best at rho = "
                f"{best['rho']:g} with {accuracy}%"
            )
    sgd = [f"SGD has {format_mean_std(g.final)}%" for g in found if g["method"] == "sgd"]
    return "; ".join([*parts, *sgd]) + "."


def section(workdir: Path) -> list[Section]:
    """The paragraph of the report, one for each data set and network."""
    rows: dict[tuple, list[Record]] = {}
    for record in result_lines.read(workdir, KIND)[0]:
        key = tuple(record[n] for n in ("dataset", "model", "label_noise", "epochs", "subset"))
        rows.setdefault(key, []).append(record)
    made = []
    for key, records in rows.items():
        found = groups(records)
        text = (
            "The paper: over rho, element-wise and filter-wise normalization with p = 2 are "
            "comparable, and p = 2 is better than p = infinity. Here, final test accuracy, mean ± "
            f"sample standard deviation: {_sentences(found)} The best rho is picked on the test "
            f"set; n = {len(records)} runs."
        )
        title = f"Figure 4: accuracy over rho, {key[0]}, {key[1]}"
        picture = PICTURE if len(rows) == 1 else f"figure4_{key[0]}_{key[1]}.png"
        made.append(figure_lines.section(title, text, records, picture, partial(draw, found)))
    return made
