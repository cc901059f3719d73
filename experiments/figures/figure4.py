"""Figure 4: test accuracy of ASAM over rho, for two norms and two normalizations.

The digits' default thins the paper's grid out where nothing changes, and trains on noisy labels,
without which all radii come to the same.
"""

import dataclasses
from pathlib import Path
from typing import Any

from experiments.config.options import Options
from experiments.config.run import Run
from experiments.figures.figure import Figure, Record, for_data
from experiments.reporting import style
from experiments.reporting.tables import Group, format_mean_std, grouped, groups
from experiments.training import runner

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
    shared = for_data(shared, RUN, PAPER)
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
    lines = runner.run_all(plan(shared, rhos, seeds), options, kind=FIGURE.kind)
    FIGURE.finish(options.workdir, lines)


def _regions(lines: list[Record]) -> dict[Any, list[Group]]:
    """The groups of each region, one for each radius, and those of SGD."""

    def region(group: Group) -> Any:
        return "SGD" if group["method"] == "sgd" else (group["normalization"], group["p"])

    return grouped(groups(lines), region)


def draw(lines: list[Record], path: Path) -> None:
    """Mean and standard deviation over seeds at each rho; SGD, which has none, as a level band."""
    found = _regions(lines)
    canvas, (axes,) = style.panels(1, 1, (5.0, 4.2))
    for region in (region for region in REGIONS if region in found):
        points = sorted((row["rho"], row.mean, row.std) for row in found[region])
        rhos, means, stds = zip(*points, strict=True)
        label, color, marker = REGIONS[region]
        axes.errorbar(rhos, means, stds, color=color, label=label, marker=marker, capsize=3)
    for group in found.get("SGD", []):
        color, low, high = style.COLORS["sgd"], group.mean - group.std, group.mean + group.std
        axes.axhline(group.mean, color=color, linestyle="--", label="SGD ($\\rho = 0$)")
        axes.axhspan(low, high, color=color, alpha=0.2, linewidth=0)
    first, seeds = lines[0], len({line["seed"] for line in lines})
    noise = f", {100 * first['label_noise']:g}% label noise" if first["label_noise"] else ""
    axes.set_title(f"{first['dataset']}, {first['model']}{noise}, {seeds} seeds")
    axes.set_xscale("log")
    axes.set_xlabel("radius $\\rho$ of the perturbation")
    axes.set_ylabel("final test accuracy (%)")
    canvas.legend(loc="outside lower center", ncols=2, frameon=False)
    style.save(canvas, path)


def text(lines: list[Record]) -> str:
    """What the report says."""
    found, parts = _regions(lines), []
    for normalization, p in (region for region in REGIONS if region in found):
        best = max(found[normalization, p], key=lambda group: group.mean)
        parts.append(
            f"{normalization} with p = {p if p == 'inf' else f'{p:g}'} is best at rho = "
            f"{best['rho']:g} with {format_mean_std(best.final)}%"
        )
    parts += [f"SGD has {format_mean_std(group.final)}%" for group in found.get("SGD", [])]
    return (
        "The paper: over rho, element-wise and filter-wise normalization with p = 2 are "
        "comparable, and p = 2 is better than p = infinity. Here, final test accuracy, mean ± "
        f"sample standard deviation: {'; '.join(parts)}. The best rho is picked on the test set; "
        f"n = {len(lines)} runs."
    )


FIGURE = Figure(
    "figure4",
    "Figure 4: accuracy over rho",
    text,
    draw,
    keys=("dataset", "model", "label_noise", "epochs", "subset"),
    runs=True,
)
