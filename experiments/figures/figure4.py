"""Figure 4: test accuracy of ASAM over rho, for two norms and two normalizations.

The digits' default thins the paper's grid out where nothing changes, and trains on noisy labels,
without which all radii come to the same.
"""

import dataclasses
from functools import partial
from pathlib import Path

import numpy as np

from experiments.config.options import Options
from experiments.config.run import Run
from experiments.figures import figure_lines
from experiments.figures.figure_lines import Record
from experiments.reporting import curves, style
from experiments.reporting.summaries import Section
from experiments.reporting.tables import Group, format_mean_std, groups
from experiments.training import result_lines, runner

KIND, PICTURE = "figure4", "figure4.png"
RUN, RHOS = Run(label_noise=0.4), (0.00005, 0.005, 0.05, 0.2, 0.5, 1.0, 2.0)
PAPER = dict(model="wrn16_8", label_noise=0.0, cutout=16)
PAPER_RHOS = (5e-5, *(round(d * 10.0**p, 5) for p in range(-4, 0) for d in (1, 2, 5)), 1.0, 2.0)
# (normalization, p) -> name, colour, marker.
REGIONS = {
    ("elementwise", "inf"): ("element-wise, $p = \\infty$", "#e69f00", "s"),
    ("elementwise", 2.0): ("element-wise, $p = 2$", style.COLORS["asam"], "o"),
    ("filterwise", 2.0): ("filter-wise, $p = 2$", "#009e73", "^"),
}


def plan(shared: Run, rhos: tuple[float, ...], seeds: int) -> list[Run]:
    """SGD, and ASAM at every rho in each region, seed by seed."""
    rhos = rhos or (RHOS if shared.dataset == RUN.dataset else PAPER_RHOS)
    shared = figure_lines.for_data(shared, RUN, PAPER)
    rows = [dict(method="sgd")]
    rows += [
        dict(method="asam", rho=rho, p=float(p), normalization=name)
        for name, p in REGIONS
        for rho in rhos
    ]
    return [dataclasses.replace(shared, seed=seed, **row) for seed in range(seeds) for row in rows]


def run(options: Options, shared: Run = RUN, rhos: tuple[float, ...] = (), seeds: int = 3) -> None:
    """Figure 4: ASAM's test accuracy over rho, for two norms and two normalizations.

    The paper's: --dataset cifar10, on an accelerator.

    Args:
      options: How.
      shared: What all networks share.
      rhos: Radii; else those of the data set.
      seeds: How many seeds.
    """
    found = groups(runner.run_all(plan(shared, rhos, seeds), options, kind=KIND))
    draw(found, options.workdir / PICTURE)
    print(_sentences(found))
    print(f"Picture: {options.workdir / PICTURE}")


def draw(found: list[Group], path: Path) -> None:
    """The regions over rho, with SGD as a level band."""
    first, sgd = found[0], [group for group in found if group["method"] == "sgd"]
    noise = f", {100 * first['label_noise']:g}% label noise" if first["label_noise"] else ""
    seeds = max(len(group.runs) for group in found)
    title = f"{first['dataset']}, {first['model']}{noise}, {seeds} seeds"
    series = {how: _of(found, region) for region, how in REGIONS.items()}
    curves.over_radius(series, sgd, path, title)


def _of(found: list[Group], region: tuple[str, float | str]) -> list[Group]:
    return [g for g in found if (g["normalization"], g["p"]) == region and g["method"] == "asam"]


def _sentences(found: list[Group]) -> str:
    parts = []
    for (normalization, p), _ in REGIONS.items():
        rows = _of(found, (normalization, p))
        if rows:
            best = max(rows, key=lambda g: float(np.mean(g.final)))
            parts.append(
                f"{normalization} with p = {p if p == 'inf' else f'{p:g}'} is best at rho = "
                f"{best['rho']:g} with {format_mean_std(best.final)}%"
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
