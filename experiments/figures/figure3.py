"""Figure 3: where SAM and ASAM go on the toy loss of section 6.1, from two starts.

From the second start SAM's ascent step leaves the half-plane w2 > 0, where the ReLU lets a
gradient through: the gradient there is zero and SAM stays where it is. ASAM's step is small in a
small coordinate.
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.axes import Axes

import asam_jax
from experiments.config import paper
from experiments.config.options import Options
from experiments.figures import toy
from experiments.figures.figure import Figure, Record
from experiments.reporting import style
from experiments.reporting.tables import grouped

STARTS = ((0.2, 0.05), (0.3, 0.033))
SAM_RHO, ASAM_RHO, ETA = 0.05, 0.5, 0.01
LR, STEPS = 0.003, 2000
EVERY = 5  # steps between two points of a line
# A trajectory has reached the valley where its loss is this or less.
REACHED = 0.05 * toy.TARGET


def trajectory(tx: optax.GradientTransformationExtraArgs, start: tuple[float, float]) -> np.ndarray:
    """The points (STEPS + 1, 2) of gradient descent by `tx` on the toy loss."""
    grad_fn, start_2 = jax.grad(toy.loss), jnp.asarray(start, jnp.float32)

    def step(carry, _):
        w, state = carry
        updates, state = tx.update(grad_fn(w), state, w, grad_fn=grad_fn)
        w = optax.apply_updates(w, updates)
        return (w, state), w

    points = jax.lax.scan(step, (start_2, tx.init(start_2)), None, length=STEPS)[1]
    return np.concatenate([np.asarray(start_2)[None], np.asarray(points)])


def measure() -> list[Record]:
    """Both methods from both starts."""
    base = optax.sgd(LR)
    methods = {
        "sam": (asam_jax.sam(base, SAM_RHO), SAM_RHO, 0.0),
        "asam": (asam_jax.asam(base, ASAM_RHO, eta=ETA), ASAM_RHO, ETA),
    }
    found = []
    for start in STARTS:
        for method, (tx, rho, eta) in methods.items():
            points = trajectory(tx, start)
            losses = np.asarray(jax.vmap(toy.loss)(jnp.asarray(points)))
            near = np.flatnonzero(losses <= REACHED)
            line = {"method": method, "start": list(start), "rho": rho, "eta": eta, "lr": LR}
            line |= {"steps": STEPS, "steps_between_points": EVERY}
            line["points"] = [[round(float(x), 6) for x in point] for point in points[::EVERY]]
            line["reached_after"] = int(near[0]) if len(near) else None
            found.append(line | {"loss_final": float(losses[-1])})
    return found


def run(options: Options) -> None:
    """Figure 3: trajectories of SAM and ASAM on a two-parameter loss."""
    FIGURE.finish(options.workdir, FIGURE.write(options.workdir, measure()))


def draw(found: list[Record], path: Path) -> None:
    """One panel for each start."""
    starts = grouped(found, lambda line: tuple(line["start"]))
    canvas, panels = style.panels(len(starts), 1, (5.0, 6.4))
    w1, w2 = np.linspace(0.1, 0.4, 301), np.linspace(-0.03, 0.27, 301)
    valley, color = toy.TARGET / w1, style.ACCENTS["valley"]
    inside = valley <= w2[-1]
    for panel, (start, lines) in zip(panels, starts.items(), strict=True):
        toy.contours(panel, w1, w2, np.arange(0.005, 0.08, 0.005))
        panel.plot(w1[inside], valley[inside], color=color, linewidth=3, label="valley")
        for line in lines:
            _path(panel, line)
        panel.plot(*start, "o", color=style.ACCENTS["start"], markersize=5, label="start")
        panel.set_title(f"$w_0$ = ({start[0]:g}, {start[1]:g})")
    toy.save(canvas, panels, path)


def _path(axes: Axes, line: Record) -> None:
    points = np.array(line["points"])
    marker, size = ("s", 11) if line["method"] == "sam" else ("D", 6)
    name = f"{paper.METHOD_NAMES[line['method']]}, $\\rho$ = {line['rho']:g} to its end"
    look: Any = dict(marker=marker, markersize=size, markevery=[len(points) - 1], fillstyle="none")
    axes.plot(*points.T, color=style.COLORS[line["method"]], linewidth=1.4, label=name, **look)


def text(found: list[Record]) -> str:
    """What the report says."""
    return (
        "The paper: SAM moves along the valley towards (0.2, 0.2), ASAM ends near where it began; "
        "from (0.3, 0.033) SAM fails to reach the valley and ASAM reaches it. Here, with a "
        f"learning rate of {found[0]['lr']:g}, SAM's rho = {SAM_RHO:g}, ASAM's rho = "
        f"{ASAM_RHO:g} and eta = {ETA:g}. {' '.join(map(_sentence, found))} In the valley means a "
        f"loss of at most {REACHED:g}; n = {len(found)} trajectories."
    )


def _sentence(line: Record) -> str:
    end, start, reached = line["points"][-1], line["start"], line["reached_after"]
    valley = (
        "does not reach the valley" if reached is None else f"is in the valley at step {reached}"
    )
    return (
        f"{paper.METHOD_NAMES[line['method']]} from ({start[0]:g}, {start[1]:g}) {valley} and "
        f"ends, after {line['steps']} steps, at ({end[0]:.3f}, {end[1]:.3f}) with a loss of "
        f"{line['loss_final']:.2g}."
    )


FIGURE = Figure("figure3", "Figure 3: trajectories of SAM and ASAM", text, draw)
