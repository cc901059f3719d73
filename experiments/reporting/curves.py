"""Pictures of test accuracy over rho, from result lines."""

from pathlib import Path

import numpy as np

from experiments.reporting import style
from experiments.reporting.tables import Group

# A label, a colour and a marker for some groups that differ in rho.
Series = dict[tuple[str, str, str], list[Group]]


def over_radius(series: Series, sgd: list[Group], path: Path, title: str) -> None:
    """Mean and standard deviation over seeds at each rho; SGD, which has none, as a level band."""
    canvas, axes = style.figure((5.0, 4.2))
    for (label, color, marker), found in series.items():
        rows = sorted(found, key=lambda group: group["rho"])
        means, stds = zip(*map(_mean_std, rows), strict=True) if rows else ([], [])
        radii = [group["rho"] for group in rows]
        axes.errorbar(radii, means, stds, color=color, label=label, marker=marker, capsize=3)
    for mean, std in map(_mean_std, sgd):
        color = style.COLORS["sgd"]
        axes.axhline(mean, color=color, linestyle="--", label="SGD ($\\rho = 0$)")
        axes.axhspan(mean - std, mean + std, color=color, alpha=0.2, linewidth=0)
    axes.set_xscale("log")
    axes.set_xlabel("radius $\\rho$ of the perturbation")
    axes.set_ylabel("final test accuracy (%)")
    axes.set_title(title)
    canvas.legend(loc="outside lower center", ncols=2, frameon=False)
    style.save(canvas, path)


def _mean_std(group: Group) -> tuple[float, float]:
    std = np.std(group.final, ddof=1) if len(group.runs) > 1 else 0.0
    return float(np.mean(group.final)), float(std)
