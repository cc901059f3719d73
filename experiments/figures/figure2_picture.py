"""The picture of Figure 2: the gap over each sharpness, a point for each network."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import LogNorm
from matplotlib.ticker import EngFormatter

from experiments.figures.figure2_measures import MEASURES
from experiments.figures.figure2_statistics import gaps, grids, score, values
from experiments.figures.figure_lines import Record
from experiments.reporting import style

TITLES = {
    "sharpness_2": "sharpness, $p = 2$",
    "adaptive_2": "adaptive, $p = 2$",
    "sharpness_inf": "sharpness, $p = \\infty$",
    "adaptive_inf": "adaptive, $p = \\infty$",
}


def draw(lines: list[Record], path: Path) -> None:
    """Four panels a grid, each at its measure's best rho; colours tell the weight decays."""
    places = [(g, rhos, m) for g, rhos in grids(lines).items() for m in MEASURES]
    canvas, panels = style.panels(len(places) // 2, 2, (5.6, 0.3 + 1.4 * len(places)))
    decays = np.array([line["run"]["weight_decay"] for line in lines])
    norm = LogNorm(decays.min(), decays.max() if np.ptp(decays) else decays.min() * 10)
    drawn = None
    for panel, (grid, rhos, measure) in zip(panels, places, strict=True):
        found = score(lines, measure, rhos)
        drawn = panel.scatter(
            values(lines, measure, found.rho),
            gaps(lines),
            c=decays,
            norm=norm,
            cmap=colormaps["cividis"],
            s=12,
            linewidths=0,
        )
        panel.set_title(
            f"{TITLES[measure]}, radii: {grid}\n$R$ = {found.r:.2f}, $\\tau$ = {found.tau:.2f}",
            fontsize=9,
        )
        # "2M", not "2" with a power of ten at the end of the label, behind rho.
        panel.xaxis.set_major_formatter(EngFormatter(sep=""))
        panel.set_xlabel(f"increase of the loss, $\\rho$ = {found.rho:g}")
    for panel in panels[::2]:
        panel.set_ylabel("generalization\ngap")
    if drawn is not None:
        bar = canvas.colorbar(drawn, ax=panels, location="bottom", shrink=0.8, aspect=40)
        bar.set_label("weight decay")
    style.save(canvas, path)


def drawing(lines: list[Record]) -> Callable[[Path], None]:
    """`draw` of these lines, for the report."""
    return partial(draw, lines)
