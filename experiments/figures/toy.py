"""The two-parameter loss of section 6.1, L(w) = |w1 ReLU(w2) - 0.04|: Figures 1 and 3."""

from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from experiments.reporting import style

TARGET = 0.04


def loss(w: jax.Array, batch: object = ()) -> jax.Array:
    """L at w = (w1, w2); depends on the product w1 ReLU(w2) alone, and on no data."""
    del batch
    return jnp.abs(w[0] * jax.nn.relu(w[1]) - TARGET)


def contours(axes: Axes, w1: np.ndarray, w2: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Draws L in gray over these coordinates; returns it there, (len(w2), len(w1))."""
    surface = np.abs(w1[None, :] * np.maximum(w2, 0)[:, None] - TARGET)
    axes.contour(w1, w2, surface, levels, colors=style.ACCENTS["contour"], linewidths=0.6)
    axes.set_xlim(w1[0], w1[-1])
    axes.set_ylim(w2[0], w2[-1])
    axes.set_ylabel("$w_2$ (no unit)")
    return surface


def save(canvas: Canvas, panels: Sequence[Axes], path: Path) -> None:
    """Writes panels one below the other, with the first one's legend on top."""
    panels[-1].set_xlabel("$w_1$ (no unit)")
    handles, labels = panels[0].get_legend_handles_labels()
    canvas.legend(handles, labels, loc="outside upper center", ncols=2, frameon=False)
    style.save(canvas, path)
