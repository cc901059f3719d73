"""Figure 1: maximization regions around two points whose loss is the same by rescaling.

w = (1, 1) and w' = (a w1, w2 / a) with a = 3 give the same network. In the sphere the maximum of
the loss differs between them, in the cuboid and the ellipsoid of adaptive sharpness it does not.
"""

import math
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Ellipse, Rectangle

import asam_jax
from experiments.config.options import Options
from experiments.figures import toy
from experiments.figures.figure import Figure, Record
from experiments.reporting import style

POINTS = {"w": (1.0, 1.0), "w'": (3.0, 1 / 3)}
RHO, STEPS = 0.5, 50
# With eta = 0: the regions of Definition 2, without what is added to T_w for stability.
ADAPTIVE = asam_jax.elementwise()
# Name -> operator, p, title.
REGIONS = {
    "sphere": (asam_jax.identity(), 2.0, "(a) sphere, $\\|\\epsilon\\|_2 \\leq \\rho$"),
    "cuboid": (ADAPTIVE, math.inf, "(b) cuboid, $\\|T_w^{-1}\\epsilon\\|_\\infty \\leq \\rho$"),
    "ellipsoid": (ADAPTIVE, 2.0, "(c) ellipsoid, $\\|T_w^{-1}\\epsilon\\|_2 \\leq \\rho$"),
}
MARKERS = {"w": ("o", "$w = (1, 1)$"), "w'": ("^", "$w' = (3, 1/3)$")}
SAME, LARGEST = "#009e73", "#cc79a7"


def measure() -> list[Record]:
    """The maximizer in each region around each point, by `asam_jax.maximizer`."""
    found = []
    for region, (operator, p, _) in REGIONS.items():
        maximize = asam_jax.maximizer(toy.loss, rho=RHO, operator=operator, p=p, steps=STEPS)
        for name, point in POINTS.items():
            w = jnp.asarray(point, jnp.float32)
            eps, rise = maximize(w, ())
            line = {"region": region, "point": name, "w": list(point), "rho": RHO, "eta": 0.0}
            line |= {"p": "inf" if math.isinf(p) else p, "steps": STEPS}
            line["half_widths"] = (RHO * jnp.broadcast_to(operator(w), w.shape)).tolist()
            line |= {"eps": eps.tolist(), "loss": float(toy.loss(w))}
            found.append(line | {"maximum": float(toy.loss(w) + rise)})
    return found


def run(options: Options) -> None:
    """Figure 1: maximization regions around two points that differ by a rescaling."""
    FIGURE.finish(options.workdir, FIGURE.write(options.workdir, measure()))


def draw(found: list[Record], path: Path) -> None:
    """The three regions, one below the other, at one scale."""
    canvas, panels = style.panels(len(REGIONS), 1, (5.0, 7.4))
    for panel, (region, (_, _, title)) in zip(panels, REGIONS.items(), strict=True):
        _panel(panel, [line for line in found if line["region"] == region])
        panel.set_title(title)
    # What the lines at a height that no axis shows are called.
    panels[0].plot([], [], color=SAME, label="loss as at $w$")
    panels[0].plot([], [], color=LARGEST, label="maximum around $w$")
    toy.save(canvas, panels, path)


def _panel(axes: Axes, found: list[Record]) -> None:
    w1, w2 = np.linspace(0, 5, 401), np.linspace(-0.4, 1.8, 221)
    surface = toy.contours(axes, w1, w2, np.arange(0.2, 6, 0.4))
    for height, color in ((found[0]["loss"], SAME), (found[0]["maximum"], LARGEST)):
        axes.contour(w1, w2, surface, [height], colors=color, linewidths=1.6)
    for line in found:
        (x, y), (a, b) = line["w"], line["half_widths"]
        inside: Rectangle | Ellipse = Ellipse((x, y), 2 * a, 2 * b)
        if line["p"] == "inf":
            inside = Rectangle((x - a, y - b), 2 * a, 2 * b)
        inside.set(facecolor="#0000000d", edgecolor="black", linewidth=1.2)
        axes.add_patch(inside)
        marker, label = MARKERS[line["point"]]
        axes.plot(x, y, marker, color="black", markersize=5, label=label)
        top = np.add(line["w"], line["eps"])
        axes.annotate("", top, (x, y), arrowprops={"arrowstyle": "->", "shrinkA": 3, "shrinkB": 2})
        label = f"${line['point']} + \\epsilon^*$"
        axes.plot(*top, marker, color=LARGEST, markeredgecolor="black", markersize=6, label=label)
    axes.set_aspect("equal")


def maxima(found: list[Record]) -> dict[str, tuple[float, float]]:
    """Region -> the maximum of the loss around w and around w'."""
    by_place = {(line["region"], line["point"]): line["maximum"] for line in found}
    return {region: (by_place[region, "w"], by_place[region, "w'"]) for region in REGIONS}


def text(found: list[Record]) -> str:
    """What the report says."""
    parts = [
        f"{region} {at_w:.4f} around w and {at_other:.4f} around w'"
        for region, (at_w, at_other) in maxima(found).items()
    ]
    first = found[0]
    return (
        "The paper: rescaling w = (1, 1) to w' = (3, 1/3) leaves a ReLU network's loss as it is, "
        "and changes the maximum of the loss in a sphere, but not in the cuboid and the ellipsoid "
        "that T_w shapes (eta = 0). Here it is the loss of section 6.1. The maximum of the loss "
        f"for rho = {first['rho']:g} (loss at both points {first['loss']:.4f}): "
        f"{'; '.join(parts)}. The maximizers are `asam_jax.maximizer`'s, {first['steps']} steps; "
        f"n = {len(found)} regions."
    )


FIGURE = Figure("figure1", "Figure 1: maximization regions", text, draw)
