"""One look for all pictures: the same colour for the same method, readable at half width."""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

# Okabe and Ito's palette, which colour-blind readers can tell apart.
COLORS = {"sgd": "#7f7f7f", "sam": "#0072b2", "asam": "#d55e00"}
EXTRA_COLORS = ("#009e73", "#cc79a7", "#e69f00", "#56b4e9")
SIZE = (6.4, 4.4)  # inches, for one pair of axes
FONT = 13
DPI = 130


def figure(columns: int = 1, rows: int = 1, size: tuple[float, float] = SIZE) -> tuple[Figure, Axes]:
    """A figure without pyplot's global state, and its axes (an array of them for several)."""
    made = Figure(figsize=(size[0] * columns, size[1] * rows), layout="constrained")
    FigureCanvasAgg(made)
    axes = made.subplots(rows, columns)
    for one in made.axes:
        one.grid(alpha=0.3)
        one.spines[["top", "right"]].set_visible(False)
        one.tick_params(labelsize=FONT - 1)
        for text in (one.xaxis.label, one.yaxis.label, one.title):
            text.set_size(FONT)
    return made, axes


def legend(axes: Axes, **where) -> None:
    """A legend in the pictures' type size."""
    axes.legend(fontsize=FONT - 1, framealpha=0.9, **where)


def save(made: Figure, path: Path) -> None:
    """Writes a PNG; its bytes depend on what is drawn alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    made.savefig(path, dpi=DPI, metadata={"Software": None})
