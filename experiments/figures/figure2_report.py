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
from experiments.reporting.tables import markdown

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
    r: float
    tau: float
    held_out: float  # R on half of the trainings at the rho chosen on the other half, both ways


def values(lines: list[Record], measure: str) -> dict[float, np.ndarray]:
    """At each rho the measure of each network."""
    table = np.array([line[measure] for line in lines], float)
    return dict(zip(lines[0]["rhos"], table.T, strict=True))


def gaps(lines: list[Record]) -> np.ndarray:
    """The generalization gap of each network."""
    return np.array([line["gap"] for line in lines], float)


def pearson(x: np.ndarray, gap: np.ndarray) -> float:
    """R; -1 where the measure is not finite or constant, so that it is never chosen."""
    if not np.all(np.isfinite(x)) or np.ptp(x) == 0:
        return -1.0
    return float(np.corrcoef(x, gap)[0, 1])


def score(lines: list[Record], measure: str, rhos: list[float]) -> Score:
    """At the rho with the largest R, as the paper chooses it; also held out."""

    def by_rho(of: list[Record]) -> dict[float, float]:
        return {rho: pearson(values(of, measure)[rho], gaps(of)) for rho in rhos} if of else {}

    def best(found: dict[float, float]) -> float:
        return max(found, key=lambda rho: found[rho])

    decays = sorted({line["run"]["weight_decay"] for line in lines})
    even = {decay for number, decay in enumerate(decays) if number % 2 == 0}
    first = by_rho([line for line in lines if line["run"]["weight_decay"] in even])
    second = by_rho([line for line in lines if line["run"]["weight_decay"] not in even])
    held_out = (second[best(first)] + first[best(second)]) / 2 if second else float("nan")
    whole = by_rho(lines)
    rho = best(whole)
    tau, _ = kendalltau(values(lines, measure)[rho], gaps(lines))
    return Score(rho, whole[rho], float(tau), held_out)  # type: ignore[arg-type]


def grids(lines: list[Record]) -> dict[str, list[float]]:
    """The paper's radii, and, where more were measured, all of them."""
    measured = lines[0]["rhos"]
    found = {"the paper's": [rho for rho in measured if rho in PAPER_RHOS]}
    if len(measured) > len(found["the paper's"]):
        found[f"up to {max(measured):g}"] = measured
    return found


def text(lines: list[Record]) -> str:
    """What the report says of Figure 2."""
    first, run, gap = lines[0], lines[0]["run"], gaps(lines)
    rows = []
    for name, rhos in grids(lines).items():
        for measure, words in NAMES.items():
            at = score(lines, measure, rhos)
            increase = f"{np.median(values(lines, measure)[at.rho]):.3g}"
            numbers = (f"{number:.3f}" for number in (at.r, at.tau, at.held_out))
            rows.append([name, words, f"{at.rho:g}", increase, *numbers])
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
        f"{_verdict(lines)}\n\n{markdown(header, rows)}\n\n"
        "rho is the one with the largest R, as in the paper, which flatters every measure; "
        "increase: of the loss at that rho, the median over networks; held "
        "out is R on every other weight decay's networks at the rho chosen on the rest, the mean "
        "of both ways."
    )


def _verdict(lines: list[Record]) -> str:
    """Whether the paper's two comparisons hold here, too: held out, grid by grid."""
    said = []
    for name, rhos in grids(lines).items():
        parts = []
        for order, label in (("2", "2"), ("inf", "infinity")):
            plain = score(lines, f"sharpness_{order}", rhos).held_out
            adaptive = score(lines, f"adaptive_{order}", rhos).held_out
            word = "agrees" if adaptive > plain else "does not agree"
            word = "does not, both are negative" if max(adaptive, plain) < 0 else word
            parts.append(f"for p = {label} it {word} (held out {adaptive:.2f} against {plain:.2f})")
        said.append(f"With the paper's claim, on the grid {name}, {' and '.join(parts)}.")
    widest = list(grids(lines).values())[-1]
    best, measure = max(((score(lines, n, widest), n) for n in NAMES), key=lambda one: one[0].r)
    said.append(
        f"The largest R, {best.r:.2f}, is at rho = {best.rho:g}, where the loss increases by "
        f"{np.median(values(lines, measure)[best.rho]):.3g}: such a radius is far outside of any "
        "minimum."
    )
    return " ".join(said)


def draw(lines: list[Record], path: Path) -> None:
    """The gap over each measure at its best rho, grid by grid, a point for each network.

    Colours tell the weight decays.
    """
    places = [(grid, rhos, name) for grid, rhos in grids(lines).items() for name in NAMES]
    canvas, panels = style.panels(len(places) // 2, 2, (5.6, 0.3 + 1.4 * len(places)))
    decays = np.array([line["run"]["weight_decay"] for line in lines])
    norm = LogNorm(decays.min(), decays.max() if np.ptp(decays) else decays.min() * 10)
    look: Any = dict(c=decays, norm=norm, cmap="cividis", s=12, linewidths=0)
    for panel, (grid, rhos, measure) in zip(panels, places, strict=True):
        at = score(lines, measure, rhos)
        panel.scatter(values(lines, measure)[at.rho], gaps(lines), **look)
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
