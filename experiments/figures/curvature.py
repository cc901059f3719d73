"""Does curvature tell the generalization gap? Measured on the networks of Figure 2.

Sharpness at a radius is, to second order, the slope and the curvature along one direction. Here is
the curvature alone: the largest eigenvalue and the trace of T H T, H the Hessian of the loss, for
T = 1 and for the paper's.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from scipy.sparse.linalg import LinearOperator, eigsh

import asam_jax
from experiments.config.options import Options
from experiments.config.run import Run
from experiments.figures import figure2
from experiments.figures.figure import Figure, Record
from experiments.figures.figure2_report import NAMES, gaps, grids, kendall, pearson, score
from experiments.figures.networks import Network, measured, rounded
from experiments.reporting.tables import markdown
from experiments.training import result_lines
from experiments.training import step as stepping
from experiments.training.spec import ModelSpec

OPERATORS = {"plain": asam_jax.identity(), "adaptive": asam_jax.elementwise()}
MEASURES = {
    "eigenvalue_plain": "largest eigenvalue of H",
    "eigenvalue_adaptive": "largest eigenvalue of T H T",
    "trace_plain": "trace of H",
    "trace_adaptive": "trace of T H T",
}
_SIGNS = 16  # random vectors for a trace
_TOLERANCE = 1e-3  # of the eigenvalue, relative


def run(options: Options, shared: Run = figure2.RUN, images: int = 256) -> None:
    """Curvature in the paper's coordinates, of the networks of figure2, trained first.

    Args:
      options: How.
      shared: Which networks.
      images: Training images that are measured on.
    """
    runs = figure2.plan(shared)
    networks = figure2.networks(options, runs, images, m=8)
    gap = {(line["run_id"], line["epoch"]): line["gap"] for line in networks}

    def measure(of: Network) -> Record:
        group = (
            jnp.asarray(of.data.train_images[:images]),
            jnp.asarray(of.data.train_labels[:images]),
        )
        found = curvatures(of.spec, of.params, of.rest, *group)
        line = {name: rounded(value) for name, value in found.items()}
        return line | {"gap": gap[of.run_id, of.epoch]}

    every = networks[0]["epoch"]
    lines = measured("curvature", runs, every, {"images": images}, options, measure)
    figure(options.workdir).finish(options.workdir, lines)


def curvatures(spec: ModelSpec, params, rest, images, labels) -> dict[str, float]:
    """The largest eigenvalue and the trace of T H T for each T_w, over all images."""
    size = ravel_pytree(params)[0].size
    found = {}
    for name in OPERATORS:

        def apply(vector: np.ndarray, name: str = name) -> np.ndarray:
            flat = jnp.asarray(vector.reshape(-1), jnp.float32)
            return np.asarray(_apply(spec, name, params, rest, images, labels, flat))

        found[f"eigenvalue_{name}"] = largest_eigenvalue(apply, size)
        found[f"trace_{name}"] = trace(apply, size)
    return found


def largest_eigenvalue(apply: Callable[[np.ndarray], np.ndarray], size: int) -> float:
    """Of a symmetric matrix, known by its products; the same start for every network.

    SciPy's Lanczos iteration (ARPACK) asks for the products from the host. One inside a compiled
    program would put a convolution into a loop, which XLA runs some 30 times slower on a CPU.
    """
    start = np.random.default_rng(0).normal(size=size).astype(np.float32)
    make: Any = LinearOperator  # SciPy has no types of its own, and those guessed are wrong
    how: Any = dict(k=1, which="LA", v0=start, tol=_TOLERANCE, return_eigenvectors=False)
    values = eigsh(make((size, size), matvec=apply, dtype=np.float32), **how)
    return float(values[0])


def trace(apply: Callable[[np.ndarray], np.ndarray], size: int) -> float:
    """Hutchinson's estimate: the mean of <z, A z> over vectors z of random signs."""
    draw = np.random.default_rng(1)
    signs = [draw.choice(np.array([-1, 1], np.float32), size) for _ in range(_SIGNS)]
    return float(np.mean([np.dot(z, apply(z)) for z in signs]))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _apply(spec: ModelSpec, name: str, params, rest, images, labels, vector) -> jax.Array:
    """T H T v, forward over reverse."""
    _, unravel = ravel_pytree(params)
    scales = OPERATORS[name](params)

    def loss(w):
        return stepping.evaluate(spec, w, rest, images, labels)[0] / len(labels)

    def scaled(tree):
        return jax.tree.map(jnp.multiply, scales, tree)

    _, product = jax.jvp(jax.grad(loss), (params,), (scaled(unravel(vector)),))
    return ravel_pytree(scaled(product))[0]


def text(lines: list[Record], sharpness: list[Record]) -> str:
    """What the report says; `sharpness` holds the same networks' lines of Figure 2."""
    run, rows = lines[0]["run"], []
    for measure, name in MEASURES.items():
        x = np.array([line[measure] for line in lines], float)
        rows.append([name, "-", *(f"{of(x, gaps(lines)):.3f}" for of in (pearson, kendall))])
    run_ids = {line["run_id"] for line in lines}
    beside = [line for line in sharpness if line["run_id"] in run_ids]
    if beside:
        rhos = list(grids(beside).values())[-1]
        for measure, name in NAMES.items():
            at = score(beside, measure, rhos)
            rows.append([name, f"{at.rho:g}", f"{at.r:.3f}", f"{at.tau:.3f}"])
    table = markdown(["measure", "rho", "R", "Kendall's tau"], rows)
    return (
        f"Not in the paper. {run['model']} on {run['dataset']}, the n = {len(lines)} networks of "
        f"Figure 2; H is the Hessian of the loss of {lines[0]['images']} training images, "
        "BatchNorm in evaluation mode, and T that of ASAM. R is the correlation with the "
        "generalization gap. A sharpness is shown at the rho with the largest R, which flatters "
        f"it; curvature has no radius to choose.\n\n{table}"
    )


def figure(workdir: Path) -> Figure:
    """A table beside that of Figure 2, and no picture."""
    sharpness = result_lines.read_kind(workdir, figure2.FIGURE.kind)
    title, keys = "Curvature and the generalization gap", ("dataset", "model", "epochs", "images")
    said = functools.partial(text, sharpness=sharpness)
    return Figure("curvature", title, said, keys=keys)
