"""The picture of the loss surfaces: cuts of all methods in one panel, a plane for each method."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from experiments.config import paper
from experiments.figures.figure_lines import Record
from experiments.reporting import style

LEVELS = 12


def draw(found: list[Record], path: Path) -> None:
    """Cuts first, then the planes with one scale for all."""
    canvas, panels = style.panels(2, 2, (5.6, 5.4))
    _cuts(panels[0], found)
    largest = float(np.percentile([line["plane"] for line in found], 90))
    levels = np.linspace(0, largest, LEVELS)
    drawn = None
    for panel, line in zip(panels[1:], found, strict=False):
        drawn = panel.contourf(
            line["grid"], line["grid"], line["plane"], levels, cmap="cividis", extend="max"
        )
        panel.plot(0, 0, "+", color="white", markersize=9, markeredgewidth=2)
        panel.set_title(paper.METHOD_NAMES[line["method"]], color=style.COLORS[line["method"]])
        panel.set_xlabel("along direction 1")
        panel.set_ylabel("along direction 2")
        panel.set_box_aspect(1)
        panel.grid(False)
    for panel in panels[1 + len(found) :]:
        panel.set_visible(False)
    if drawn is not None:
        bar = canvas.colorbar(drawn, ax=panels, location="bottom", shrink=0.8, aspect=40)
        bar.set_label("training loss (nats)")
        bar.set_ticks([round(float(x), 1) for x in np.linspace(0, largest, 5)])
    style.save(canvas, path)


def _cuts(axes: Axes, found: list[Record]) -> None:
    for line in found:
        color = style.COLORS[line["method"]]
        cuts = np.array(line["train_loss"])
        axes.plot(
            line["alphas"], cuts.mean(0), color=color, label=paper.METHOD_NAMES[line["method"]]
        )
        axes.fill_between(line["alphas"], cuts.min(0), cuts.max(0), color=color, alpha=0.15)
    axes.set_title(f"{len(found[0]['train_loss'])} directions")
    axes.set_xlabel("distance (filter lengths)")
    axes.set_ylabel("training loss (nats)")
    axes.set_box_aspect(1)
    axes.legend(fontsize=9, loc="upper center", handlelength=1.2)
