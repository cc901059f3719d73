"""How every picture looks: the same colour for the same method, legible at half its width."""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

# From the palette of Okabe and Ito, which colour-blind readers can tell apart.
COLORS = {"sgd": "#6e6e6e", "sam": "#d55e00", "asam": "#0072b2"}
ACCENTS = {"start": "#000000", "valley": "#cc79a7", "contour": "#b0b0b0"}

# Pictures are small in inches: text of 10 points stays legible when a page shrinks them.
DPI = 200


def panels(rows: int, columns: int, size: tuple[float, float]) -> tuple[Figure, list[Axes]]:
    """A picture of several panels, row by row."""
    canvas = Figure(figsize=size, dpi=DPI, layout="constrained")
    FigureCanvasAgg(canvas)
    axes = [canvas.add_subplot(rows, columns, i + 1) for i in range(rows * columns)]
    for panel in axes:
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(color="#e6e6e6", linewidth=0.6)
        panel.set_axisbelow(True)
    return canvas, axes


def save(canvas: Figure, path: Path) -> None:
    """Writes a PNG without the time or the version in it: the same lines give the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    canvas.savefig(path, dpi=DPI, format="png", metadata={"Software": None})
