"""Figure 3: where SAM and ASAM go on the toy loss of section 6.1, from two starts.

From the second start SAM's ascent step leaves the half-plane w2 > 0, where the ReLU lets a
gradient through: the gradient there is zero and SAM stays where it is. ASAM's step is small in a
small coordinate.
"""

from collections.abc import Callable
from functools import partial
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
from experiments.figures import figure_lines, two_parameter_loss
from experiments.figures.figure_lines import Record
from experiments.reporting import style
from experiments.reporting.summaries import Section
from experiments.training import result_lines

KIND, PICTURE = "figure3", "figure3.png"
STARTS = ((0.2, 0.05), (0.3, 0.033))
SAM_RHO, ASAM_RHO, ETA = 0.05, 0.5, 0.01
LR, STEPS = 0.003, 2000
EVERY = 5  # steps between two points of a line
# A trajectory has reached the valley where its loss is this share of the target or less.
REACHED = 0.05


def trajectory(
    wrap: Callable[[optax.GradientTransformation], optax.GradientTransformationExtraArgs],
    start: tuple[float, float],
    lr: float,
    steps: int,
) -> np.ndarray:
    """The points (steps + 1, 2) of gradient descent through `wrap` on the toy loss."""
    tx, grad_fn = wrap(optax.sgd(lr)), jax.grad(two_parameter_loss.loss)
    start_2 = jnp.asarray(start, jnp.float32)

    def step(carry, _):
        w, state = carry
        updates, state = tx.update(grad_fn(w), state, w, grad_fn=grad_fn)
        w = optax.apply_updates(w, updates)
        return (w, state), w

    points = jax.lax.scan(step, (start_2, tx.init(start_2)), None, length=steps)[1]
    return np.concatenate([np.asarray(start_2)[None], np.asarray(points)])


def measure(lr: float = LR, steps: int = STEPS) -> list[Record]:
    """Both methods from both starts."""
    methods = {
        "sam": (partial(asam_jax.sam, rho=SAM_RHO), SAM_RHO, 0.0),
        "asam": (partial(asam_jax.asam, rho=ASAM_RHO, eta=ETA), ASAM_RHO, ETA),
    }
    found = []
    for start in STARTS:
        for method, (wrap, rho, eta) in methods.items():
            points = trajectory(wrap, start, lr, steps)
            losses = np.asarray(jax.vmap(two_parameter_loss.loss)(jnp.asarray(points)))
            near = np.flatnonzero(losses <= REACHED * two_parameter_loss.TARGET)
            line = {"method": method, "start": list(start), "rho": rho, "eta": eta, "lr": lr}
            line |= {"steps": steps, "seed": None, "steps_between_points": EVERY}
            line["points"] = [[round(float(x), 6) for x in point] for point in points[::EVERY]]
            line["reached_after"] = int(near[0]) if len(near) else None
            found.append(line | {"loss_final": float(losses[-1])})
    return found


def run(options: Options) -> None:
    """Figure 3: trajectories of SAM and ASAM on a two-parameter loss."""
    workdir = options.workdir
    found = figure_lines.write(workdir, KIND, measure())
    draw(found, workdir / PICTURE)
    print("\n".join(_sentence(line) for line in found))
    print(f"Result lines: {workdir / result_lines.name_of(KIND)}; picture: {workdir / PICTURE}")


def draw(found: list[Record], path: Path) -> None:
    """One panel for each start."""
    starts = list(dict.fromkeys(tuple(line["start"]) for line in found))
    canvas, panels = style.panels(len(starts), 1, (5.0, 6.4))
    for panel, start in zip(panels, starts, strict=True):
        _background(panel)
        for line in found:
            if tuple(line["start"]) == start:
                _path(panel, line)
        panel.plot(*start, "o", color=style.ACCENTS["start"], markersize=5, label="start")
        panel.set_title(f"$w_0$ = ({start[0]:g}, {start[1]:g})")
        panel.set_ylabel("$w_2$ (no unit)")
    panels[-1].set_xlabel("$w_1$ (no unit)")
    handles, labels = panels[0].get_legend_handles_labels()
    canvas.legend(handles, labels, loc="outside upper center", ncols=2, frameon=False)
    style.save(canvas, path)


def _background(axes: Axes) -> None:
    w1, w2 = np.linspace(0.1, 0.4, 301), np.linspace(-0.03, 0.27, 301)
    levels = np.arange(0.005, 0.08, 0.005)
    surface = two_parameter_loss.surface(w1, w2)
    axes.contour(w1, w2, surface, levels, colors=style.ACCENTS["contour"], linewidths=0.6)
    valley = two_parameter_loss.TARGET / w1
    inside = valley <= w2[-1]
    axes.plot(
        w1[inside], valley[inside], color=style.ACCENTS["valley"], linewidth=3, label="valley"
    )
    axes.set_xlim(w1[0], w1[-1])
    axes.set_ylim(w2[0], w2[-1])


def _path(axes: Axes, line: Record) -> None:
    points = np.array(line["points"])
    marker, size = ("s", 11) if line["method"] == "sam" else ("D", 6)
    name = f"{paper.METHOD_NAMES[line['method']]}, $\\rho$ = {line['rho']:g} to its end"
    look: dict[str, Any] = dict(
        color=style.COLORS[line["method"]], linewidth=1.4, fillstyle="none", label=name
    )
    last = [len(points) - 1]
    axes.plot(*points.T, marker=marker, markersize=size, markevery=last, **look)


def _sentence(line: Record) -> str:
    end, start = line["points"][-1], line["start"]
    name = paper.METHOD_NAMES[line["method"]]
    reached = line["reached_after"]
    valley = (
        "does not reach the valley" if reached is None else f"is in the valley at step {reached}"
    )
    return (
        f"{name} from ({start[0]:g}, {start[1]:g}) {valley} and ends, after {line['steps']} steps, "
        f"at ({end[0]:.3f}, {end[1]:.3f}) with a loss of {line['loss_final']:.2g}."
    )


def section(workdir: Path) -> list[Section]:
    """The paragraph of the report, where there are lines."""
    found = result_lines.read_kind(workdir, KIND)
    if not found:
        return []
    first = found[0]
    text = (
        "The paper: SAM moves along the valley towards (0.2, 0.2), ASAM ends near where it began; "
        "from (0.3, 0.033) SAM fails to reach the valley and ASAM reaches it. Here, with a "
        f"learning rate of {first['lr']:g}, SAM's rho = {SAM_RHO:g}, ASAM's rho = {ASAM_RHO:g} and "
        f"eta = {ETA:g}. {' '.join(_sentence(line) for line in found)} In the valley means a loss "
        f"of at most {REACHED * two_parameter_loss.TARGET:g}; n = {len(found)} trajectories."
    )
    title = "Figure 3: trajectories of SAM and ASAM"
    return [figure_lines.section(title, text, found, PICTURE, partial(draw, found))]
