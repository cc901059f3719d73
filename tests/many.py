"""A small regression in NumPy float64, cut into groups of examples that share an eps.

    loss = mean over examples of the sum over outputs of (tanh(x kernel + bias) head - y)^2

Gradients are written by hand and eps comes from the oracle, so the reference knows no devices.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracle
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import asam_jax

RHO = 0.3
BATCH = 16
EXAMPLES = np.arange(BATCH)
WHOLE = [EXAMPLES]
ONE_EACH = list(EXAMPLES.reshape(8, 2))
GRID = EXAMPLES.reshape(4, 2, 2)  # (outer, inner, examples of a device)
SHAPES = {"kernel": (6, 8), "bias": (8,), "head": (8, 4)}


def problem(seed=0):
    """Parameters, inputs and targets in float32."""
    random = np.random.default_rng(seed)
    draw = lambda *shape: random.normal(size=shape).astype(np.float32)  # noqa: E731
    params = {name: 0.5 * draw(*shape) for name, shape in SHAPES.items()}
    return params, draw(BATCH, 6), draw(BATCH, 4)


def numpy_loss(jnp, params, x, y):
    """The loss, in NumPy or in jax.numpy."""
    hidden = jnp.tanh(x @ params["kernel"] + params["bias"].reshape(1, -1))
    return jnp.mean(jnp.sum((hidden @ params["head"] - y) ** 2, axis=1))


loss = functools.partial(numpy_loss, jnp)


def gradient(params, x, y):
    """The loss's gradient by hand."""
    w = {name: np.asarray(array, np.float64) for name, array in params.items()}
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    hidden = np.tanh(x @ w["kernel"] + w["bias"])
    residual = 2 * (hidden @ w["head"] - y) / len(x)
    inner = (residual @ w["head"].T) * (1 - hidden**2)
    return {"kernel": x.T @ inner, "bias": inner.sum(axis=0), "head": hidden.T @ residual}


def reference(params, x, y, groups, rho=RHO):
    """The loss, and the mean over groups of the gradient at w + eps of their own examples."""
    grads = []
    for group in groups:
        eps = oracle.perturbation(params, gradient(params, x[group], y[group]), rho=rho)
        perturbed = {name: params[name] + eps[name] for name in params}
        grads.append(gradient(perturbed, x[group], y[group]))
    mean = {name: np.mean([g[name] for g in grads], axis=0) for name in params}
    return numpy_loss(np, params, x, y), mean


def varying(params, x, axis_name):
    """The parameters, cast to be each device's own where shard_map keeps track of that."""
    if not jax.typeof(x).manual_axis_type.varying:
        return params
    return jax.tree.map(lambda w: jax.lax.pcast(w, axis_name, to="varying"), params)


def both(axis_name, perturb_axis_name):
    """A function to be mapped: value_and_grad's result, and the updates of sharpness_aware."""
    axes = dict(axis_name=axis_name, perturb_axis_name=perturb_axis_name)
    value_and_grad = asam_jax.value_and_grad(loss, rho=RHO, **axes)
    tx = asam_jax.sharpness_aware(RHO, **axes)

    def mapped(params, x, y):
        grad_fn = lambda w: jax.grad(loss)(w, x, y)  # noqa: E731
        grads = grad_fn(varying(params, x, axis_name))
        updates, _ = tx.update(grads, tx.init(params), params, grad_fn=grad_fn)
        return value_and_grad(params, x, y), updates

    return mapped


def mesh(shape, names):
    """The eight virtual devices, with axes that the compiler or shard_map cuts along."""
    return jax.make_mesh(shape, names, axis_types=(AxisType.Auto,) * len(shape))


SHARED, CUT = P(), P("data")


def mapped(shape, names, step, in_specs, out_specs, **options):
    """A step under shard_map over the eight devices."""
    devices = mesh(shape, names)
    step = jax.shard_map(step, mesh=devices, in_specs=in_specs, out_specs=out_specs, **options)
    # Without in_shardings a second step, whose arguments lie on the mesh, is compiled anew.
    return jax.jit(step, in_shardings=jax.tree.map(lambda s: NamedSharding(devices, s), in_specs))


def over_data(step, in_specs=(SHARED, CUT, CUT), out_specs=SHARED, **options):
    """On eight devices, each with its share of the examples."""
    return mapped((8,), ("data",), step, in_specs, out_specs, **options)


def close(got, expected, tolerance=1e-5):
    """Asserts equality, leaf by leaf, relative to each leaf's largest entry."""
    assert got.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_allclose(got[name], array, rtol=0, atol=tolerance * np.abs(array).max())
