"""How well each sharpness tells the gap, and at which rho: numbers from the lines of Figure 2."""

import dataclasses

import numpy as np
from scipy.stats import kendalltau

from experiments.figures.figure2_measures import MEASURES
from experiments.figures.figure_lines import Record
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


def values(lines: list[Record], measure: str, rho: float) -> np.ndarray:
    """The measure of each network at one rho."""
    return np.array([line[measure][line["rhos"].index(rho)] for line in lines], float)


def gaps(lines: list[Record]) -> np.ndarray:
    return np.array([line["gap"] for line in lines])


def correlation(lines: list[Record], measure: str, rho: float) -> float:
    """Pearson's R; -1 where the measure is not finite or constant, so that it is never chosen."""
    x = values(lines, measure, rho)
    if not np.all(np.isfinite(x)) or np.ptp(x) == 0:
        return -1.0
    return float(np.corrcoef(x, gaps(lines))[0, 1])


def best_rho(lines: list[Record], measure: str, rhos: list[float]) -> float:
    """The rho with the largest R, as the paper chooses it."""
    return max(rhos, key=lambda rho: correlation(lines, measure, rho))


def score(lines: list[Record], measure: str, rhos: list[float]) -> Score:
    """Chosen on all networks; and on half of the trainings, scored on the others."""
    rho = best_rho(lines, measure, rhos)
    decays = sorted({line["run"]["weight_decay"] for line in lines})
    even = [line for line in lines if decays.index(line["run"]["weight_decay"]) % 2 == 0]
    odd = [line for line in lines if decays.index(line["run"]["weight_decay"]) % 2 == 1]
    held_out = [
        correlation(second, measure, best_rho(first, measure, rhos))
        for first, second in ((even, odd), (odd, even))
        if first and second
    ]
    tau, _ = kendalltau(values(lines, measure, rho), gaps(lines))
    return Score(
        rho,
        correlation(lines, measure, rho),
        float(tau),  # type: ignore[arg-type]
        float(np.mean(held_out)) if held_out else float("nan"),
    )


def grids(lines: list[Record]) -> dict[str, list[float]]:
    """The paper's radii, and, where more were measured, all of them."""
    measured = lines[0]["rhos"]
    found = {"the paper's": [rho for rho in measured if rho in PAPER_RHOS]}
    if len(measured) > len(found["the paper's"]):
        found[f"up to {max(measured):g}"] = measured
    return found


def sentences(lines: list[Record]) -> str:
    """What the report says of Figure 2."""
    first, run = lines[0], lines[0]["run"]
    rows = []
    for name, rhos in grids(lines).items():
        for measure in MEASURES:
            found = score(lines, measure, rhos)
            rows.append(
                [
                    name,
                    NAMES[measure],
                    f"{found.rho:g}",
                    f"{np.median(values(lines, measure, found.rho)):.3g}",
                    f"{found.r:.3f}",
                    f"{found.tau:.3f}",
                    f"{found.held_out:.3f}",
                ]
            )
    header = ["grid of rho", "measure", "rho", "increase", "R", "Kendall's tau", "R, held out"]
    gap = gaps(lines)
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
    """Whether the paper's two comparisons come out here, too: held out, grid by grid."""
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
    scores = [(score(lines, measure, widest), measure) for measure in MEASURES]
    best, measure = max(scores, key=lambda one: one[0].r)
    increase = np.median(values(lines, measure, best.rho))
    said.append(
        f"The largest R, {best.r:.2f}, is at rho = {best.rho:g}, where the loss increases by "
        f"{increase:.3g}: such a radius is far outside of any minimum."
    )
    return " ".join(said)
