"""How well each sharpness tells the gap, and at which rho: a table and a picture of Figure 2."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.ticker import EngFormatter
from scipy.stats import kendalltau

from experiments.figures.figure import Record
from experiments.reporting import style
from experiments.reporting.tables import grouped, markdown

# Appendix B's.
PAPER_RHOS = (1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2)
NAMES = {
    "sharpness_2": "sharpness, p = 2",
    "adaptive_2": "adaptive sharpness, p = 2",
    "sharpness_inf": "sharpness, p = infinity",
    "adaptive_inf": "adaptive sharpness, p = infinity",
}


@dataclasses.dataclass(frozen=True)
class Score:
    """A measure at the rho whose correlation R with the gap is largest."""

    rho: float
    values: np.ndarray  # of each network
    r: float
    tau: float
    held_out: float  # R on half of the trainings at the rho chosen on the other half, both ways


def gaps(lines: list[Record]) -> np.ndarray:
    """The generalization gap of each network."""
    return np.array([line["gap"] for line in lines], float)


def values(lines: list[Record], measure: str) -> dict[float, np.ndarray]:
    """At each rho the measure of each network."""
    table = np.array([line[measure] for line in lines], float)
    return dict(zip(lines[0]["rhos"], table.T, strict=True))


def correlations(lines: list[Record], measure: str, rhos: list[float]) -> dict[float, float]:
    """R at each rho; -1 where the measure is not finite or constant, so that it is never chosen."""
    found = {}
    for rho in rhos:
        x = values(lines, measure)[rho]
        usable = np.all(np.isfinite(x)) and np.ptp(x) > 0
        found[rho] = float(np.corrcoef(x, gaps(lines))[0, 1]) if usable else -1.0
    return found


def score(lines: list[Record], measure: str, rhos: list[float]) -> Score:
    """At the rho with the largest R, as the paper chooses it; also held out."""

    def best(found: dict[float, float]) -> float:
        return max(found, key=lambda rho: found[rho])

    decays, held_out = sorted({line["run"]["weight_decay"] for line in lines}), float("nan")
    halves = grouped(lines, lambda line: decays.index(line["run"]["weight_decay"]) % 2).values()
    if len(halves) == 2:
        first, second = (correlations(half, measure, rhos) for half in halves)
        held_out = (second[best(first)] + first[best(second)]) / 2
    whole = correlations(lines, measure, rhos)
    rho = best(whole)
    at = values(lines, measure)[rho]
    tau, _ = kendalltau(at, gaps(lines))
    return Score(rho, at, whole[rho], float(tau), held_out)  # type: ignore[arg-type]


def scores(lines: list[Record]) -> dict[tuple[str, str], Score]:
    """Of each measure on the paper's grid of radii and, where more were measured, on all."""
    measured = lines[0]["rhos"]
    grids = {"the paper's": [rho for rho in measured if rho in PAPER_RHOS]}
    if len(measured) > len(grids["the paper's"]):
        grids[f"up to {max(measured):g}"] = measured
    return {(grid, n): score(lines, n, rhos) for grid, rhos in grids.items() for n in NAMES}


def text(lines: list[Record]) -> str:
    """What the report says of Figure 2."""
    first, run, gap, found = lines[0], lines[0]["run"], gaps(lines), scores(lines)
    rows = []
    for (grid, measure), at in found.items():
        row = [grid, NAMES[measure], f"{at.rho:g}", f"{np.median(at.values):.3g}"]
        rows.append([*row, *(f"{number:.3f}" for number in (at.r, at.tau, at.held_out))])
    header = ["grid of rho", "measure", "rho", "increase", "R", "Kendall's tau", "R, held out"]
    noise = (
        f" Training and test labels are {100 * run['label_noise']:g}% noise, since clean digits "
        "leave no gap worth plotting."
        if run["label_noise"]
        else ""
    )
    return (
        "The paper: adaptive sharpness correlates with the generalization gap better than "
        "sharpness does, for p = 2 and for p = infinity. Here: "
        f"{run['model']} on {run['dataset']}, trained by {run['method'].upper()} with "
        f"{len({line['run_id'] for line in lines})} weight decays, "
        f"n = {len(lines)} networks with gaps (test loss minus training loss) from "
        f"{gap.min():.2f} to {gap.max():.2f}. One-step sharpness with m = {first['m']} on "
        f"{first['images']} training images, BatchNorm in {first['batch_norm']} mode.{noise} "
        f"{_verdict(found)}\n\n{markdown(header, rows)}\n\n"
        "rho is the one with the largest R, as in the paper, which flatters every measure; "
        "increase: of the loss at that rho, the median over networks, and where that is many times "
        "a loss, the radius is far outside of any minimum; held out is R on every other weight "
        "decay's networks at the rho chosen on the rest, the mean of both ways."
    )


def _verdict(found: dict[tuple[str, str], Score]) -> str:
    """Whether the paper's two comparisons hold here, too: held out, grid by grid."""
    said = []
    for grid in dict.fromkeys(grid for grid, _ in found):
        parts = []
        for order, label in (("2", "2"), ("inf", "infinity")):
            plain = found[grid, f"sharpness_{order}"].held_out
            adaptive = found[grid, f"adaptive_{order}"].held_out
            word = "agrees" if adaptive > plain else "does not agree"
            word = "does not, both are negative" if max(adaptive, plain) < 0 else word
            parts.append(f"for p = {label} it {word} (held out {adaptive:.2f} against {plain:.2f})")
        said.append(f"With the paper's claim, on the grid {grid}, {' and '.join(parts)}.")
    return " ".join(said)


def draw(lines: list[Record], path: Path) -> None:
    """The gap over each measure at its best rho, grid by grid, a point for each network.

    Colours tell the weight decays.
    """
    found = scores(lines)
    canvas, panels = style.panels(len(found) // 2, 2, (5.6, 0.3 + 1.4 * len(found)))
    decays = np.array([line["run"]["weight_decay"] for line in lines])
    norm = LogNorm(decays.min(), decays.max() if np.ptp(decays) else decays.min() * 10)
    look: Any = dict(c=decays, norm=norm, cmap="cividis", s=12, linewidths=0)
    for panel, ((grid, measure), at) in zip(panels, found.items(), strict=True):
        panel.scatter(at.values, gaps(lines), **look)
        said = f"{NAMES[measure]}\nradii: {grid}; $R$ = {at.r:.2f}, $\\tau$ = {at.tau:.2f}"
        panel.set_title(said, fontsize=8)
        # "2M", not "2" with a power of ten at the end of the label, behind rho.
        panel.xaxis.set_major_formatter(EngFormatter(sep=""))
        panel.set_xlabel(f"increase of the loss, $\\rho$ = {at.rho:g}")
    for panel in panels[::2]:
        panel.set_ylabel("generalization\ngap")
    bar = canvas.colorbar(
        panels[0].collections[0], ax=panels, location="bottom", shrink=0.8, aspect=40
    )
    bar.set_label("weight decay")
    style.save(canvas, path)
