"""The curvature of a network's loss in the coordinates T_w^-1 eps: of T H T, H the Hessian.

For the largest eigenvalue SciPy's Lanczos iteration (ARPACK) asks for products with a vector from
the host. One inside a compiled program would put a convolution into a loop, which XLA runs some 30
times slower on a CPU.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from scipy.sparse.linalg import LinearOperator, eigsh

import asam_jax
from experiments.training import step as stepping
from experiments.training.spec import ModelSpec

OPERATORS = {"plain": asam_jax.identity(), "adaptive": asam_jax.elementwise()}
_SIGNS = 16  # random vectors for a trace
_TOLERANCE = 1e-3  # of the eigenvalue, relative


def measure(
    spec: ModelSpec, params: Any, rest: Any, images: np.ndarray, labels: np.ndarray
) -> dict[str, float]:
    """The largest eigenvalue and the trace of T H T for each T_w, over all images."""
    data = jnp.asarray(images), jnp.asarray(labels)
    size = ravel_pytree(params)[0].size
    found = {}
    for name in OPERATORS:

        def apply(vector: np.ndarray, name: str = name) -> np.ndarray:
            flat = jnp.asarray(vector.reshape(-1), jnp.float32)
            return np.asarray(_apply(spec, name, params, rest, *data, flat))

        found[f"eigenvalue_{name}"] = largest_eigenvalue(apply, size)
        found[f"trace_{name}"] = trace(apply, size)
    return found


def largest_eigenvalue(apply: Any, size: int) -> float:
    """Of a symmetric matrix, known by its products; the same start for every network."""
    start = np.random.default_rng(0).normal(size=size).astype(np.float32)
    make: Any = LinearOperator  # SciPy has no types of its own, and those guessed are wrong
    how: Any = dict(k=1, which="LA", v0=start, tol=_TOLERANCE, return_eigenvectors=False)
    values = eigsh(make((size, size), matvec=apply, dtype=np.float32), **how)
    return float(values[0])


def trace(apply: Any, size: int) -> float:
    """Hutchinson's estimate: the mean of <z, A z> over vectors z of random signs."""
    draw = np.random.default_rng(1)
    signs = [draw.choice(np.array([-1, 1], np.float32), size) for _ in range(_SIGNS)]
    return float(np.mean([np.dot(z, apply(z)) for z in signs]))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _apply(spec, name, params, rest, images, labels, vector) -> jax.Array:
    """T H T v, forward over reverse."""
    _, unravel = ravel_pytree(params)
    scales = OPERATORS[name](params)

    def loss(w):
        return stepping.evaluate(spec, w, rest, images, labels)[0] / len(labels)

    def scaled(tree):
        return jax.tree.map(jnp.multiply, scales, tree)

    _, product = jax.jvp(jax.grad(loss), (params,), (scaled(unravel(vector)),))
    return ravel_pytree(scaled(product))[0]
