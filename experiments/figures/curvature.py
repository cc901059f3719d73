"""Does curvature tell the generalization gap? Measured on the networks of Figure 2.

Sharpness at a radius is, to second order, the slope and the curvature along one direction. Here is
the curvature alone: the largest eigenvalue and the trace of T H T, for T = 1 and for the paper's.
"""

from pathlib import Path

import numpy as np
from scipy.stats import kendalltau

from experiments.config.options import Options
from experiments.config.run import Run
from experiments.datasets import arrays
from experiments.figures import curvature_measures, figure2, figure_lines
from experiments.figures.figure2_statistics import NAMES, grids, score
from experiments.figures.figure_lines import Record
from experiments.reporting.summaries import Section
from experiments.reporting.tables import markdown
from experiments.training import result_lines, weights
from experiments.training.runner import workdir_lock
from experiments.training.spec import model_spec

KIND = "curvature"
MEASURES = {
    "eigenvalue_plain": "largest eigenvalue of H",
    "eigenvalue_adaptive": "largest eigenvalue of T H T",
    "trace_plain": "trace of H",
    "trace_adaptive": "trace of T H T",
}


def run(options: Options, shared: Run = figure2.RUN, images: int = 256) -> None:
    """Curvature in the paper's coordinates, of the networks of figure2, trained first.

    Args:
      options: How.
      shared: Which networks.
      images: Training images that are measured on.
    """
    configs = figure2.plan(shared)
    figure2.run(options, shared, figure2.Measuring(images))
    with workdir_lock(options.workdir):
        _measure(configs, images, options)
    fingerprint = arrays.load(configs[0].dataset, options.data_dir).fingerprint
    ours = {one.run_id(fingerprint) for one in configs}
    lines = result_lines.read_kind(options.workdir, KIND)
    lines = [x for x in lines if x["run_id"] in ours and x["images"] == images]
    sharpness = result_lines.read_kind(options.workdir, figure2.KIND)
    print(sentences(lines, sharpness))
    print(f"Result lines: {options.workdir / result_lines.name_of(KIND)}.")


def _measure(configs: list[Run], images: int, options: Options) -> None:
    """Appends a line for each network of Figure 2 that has none yet."""
    workdir = options.workdir
    known = {_place(line) for line in result_lines.read_kind(workdir, KIND)}
    original = arrays.load(configs[0].dataset, options.data_dir)
    ours = {one.run_id(original.fingerprint): one for one in configs}
    specs = {}
    for line in result_lines.read_kind(workdir, figure2.KIND):
        run_id, epoch = line["run_id"], line["epoch"]
        if run_id not in ours or (run_id, epoch, images) in known:
            continue
        if run_id not in specs:
            one = ours[run_id]
            prepared = arrays.prepare(original, one)
            specs[run_id] = model_spec(one, prepared), prepared
            print(f"Curvature at weight decay {one.weight_decay:g}.", flush=True)
        spec, prepared = specs[run_id]
        params, rest = weights.load(weights.path_of(workdir, run_id, epoch), spec)
        group = prepared.train_images[:images], prepared.train_labels[:images]
        found = curvature_measures.measure(spec, params, rest, *group)
        record = {name: float(f"{value:.5g}") for name, value in found.items()}
        record |= {"run_id": run_id, "epoch": epoch, "images": images, "gap": line["gap"]}
        record |= {"dataset_fingerprint": original.fingerprint, "run": line["run"]}
        result_lines.append(workdir, figure_lines.stamped(KIND, record))
        known.add((run_id, epoch, images))


def _place(line: Record) -> tuple:
    return (line["run_id"], line["epoch"], line["images"])


def correlations(lines: list[Record], measure: str) -> tuple[float, float]:
    """Pearson's R and Kendall's tau with the gap."""
    x = np.array([line[measure] for line in lines], float)
    gap = np.array([line["gap"] for line in lines])
    return float(np.corrcoef(x, gap)[0, 1]), float(kendalltau(x, gap)[0])  # type: ignore[arg-type]


def sentences(lines: list[Record], sharpness: list[Record]) -> str:
    """What the report says; `sharpness` holds the same networks' lines of Figure 2."""
    run_ids = {line["run_id"] for line in lines}
    run = lines[0]["run"]
    rows = []
    for measure, name in MEASURES.items():
        rows.append([name, "-", *(f"{value:.3f}" for value in correlations(lines, measure))])
    beside = [line for line in sharpness if line["run_id"] in run_ids]
    if beside:
        rhos = list(grids(beside).values())[-1]
        for measure, name in NAMES.items():
            found = score(beside, measure, rhos)
            rows.append([name, f"{found.rho:g}", f"{found.r:.3f}", f"{found.tau:.3f}"])
    table = markdown(["measure", "rho", "R", "Kendall's tau"], rows)
    return (
        f"Not in the paper. {run['model']} on {run['dataset']}, the n = {len(lines)} networks of "
        f"Figure 2; H is the Hessian of the loss of {lines[0]['images']} training images, "
        "BatchNorm in evaluation mode, and T that of ASAM. R is the correlation with the "
        "generalization gap. A sharpness is shown at the rho with the largest R, which flatters "
        f"it; curvature has no radius to choose.\n\n{table}"
    )


def section(workdir: Path) -> list[Section]:
    """The paragraph and the table of the report for each experiment that there are lines for."""
    rows: dict[tuple, list[Record]] = {}
    for line in result_lines.read_kind(workdir, KIND):
        made_by = line["run"]
        key = (made_by["dataset"], made_by["model"], made_by["epochs"], line["images"])
        rows.setdefault(key, []).append(line)
    sharpness = result_lines.read_kind(workdir, figure2.KIND)
    return [
        Section(
            f"Curvature and the generalization gap, {key[0]}, {key[1]}",
            f"{sentences(lines, sharpness)}\n\n{figure_lines.origin(lines)}",
        )
        for key, lines in rows.items()
    ]
