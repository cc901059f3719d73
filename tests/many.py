"""A small regression in NumPy float64, cut into groups of examples that share an eps.

    loss = mean over examples of the sum over outputs of (tanh(x kernel + bias) head - y)^2

Gradients are written by hand and eps comes from the oracle, so the reference knows no devices.
"""

import jax
import numpy as np
import oracle
from jax.sharding import AxisType

RHO = 0.3
BATCH = 16
SHAPES = {"kernel": (6, 8), "bias": (8,), "head": (8, 4)}


def problem(seed=0):
    """Parameters, inputs and targets in float32."""
    random = np.random.default_rng(seed)
    draw = lambda *shape: random.normal(size=shape).astype(np.float32)  # noqa: E731
    params = {name: 0.5 * draw(*shape) for name, shape in SHAPES.items()}
    return params, draw(BATCH, 6), draw(BATCH, 4)


def loss(jnp, params, x, y):
    """The loss, in NumPy or in jax.numpy."""
    hidden = jnp.tanh(x @ params["kernel"] + params["bias"].reshape(1, -1))
    return jnp.mean(jnp.sum((hidden @ params["head"] - y) ** 2, axis=1))


def gradient(params, x, y):
    """The loss's gradient by hand."""
    w = {name: np.asarray(array, np.float64) for name, array in params.items()}
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    hidden = np.tanh(x @ w["kernel"] + w["bias"])
    residual = 2 * (hidden @ w["head"] - y) / len(x)
    inner = (residual @ w["head"].T) * (1 - hidden**2)
    return {"kernel": x.T @ inner, "bias": inner.sum(axis=0), "head": hidden.T @ residual}


def reference(params, x, y, groups):
    """The loss, and the mean over groups of the gradient at w + eps of their own examples."""
    grads = []
    for group in groups:
        eps = oracle.perturbation(params, gradient(params, x[group], y[group]), rho=RHO)
        ascended = {name: params[name] + eps[name] for name in params}
        grads.append(gradient(ascended, x[group], y[group]))
    mean = {name: np.mean([g[name] for g in grads], axis=0) for name in params}
    return loss(np, params, x, y), mean


def mesh(shape, names):
    """The eight virtual devices, with axes that the compiler or shard_map cuts along."""
    return jax.make_mesh(shape, names, axis_types=(AxisType.Auto,) * len(shape))


def close(got, expected, tolerance=1e-5):
    """Asserts equality, leaf by leaf, relative to each leaf's largest entry."""
    assert got.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_allclose(got[name], array, rtol=0, atol=tolerance * np.abs(array).max())
