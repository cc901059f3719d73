"""Whose gradient makes eps under pmap: each device's, a group's or all devices'."""

import functools

import jax
import jax.numpy as jnp
import many
import numpy as np
import optax
import pytest

import asam_jax

loss = functools.partial(many.loss, jnp)


def check(found, expected_value, expected):
    """Every device has the same result, and it is the reference's."""
    (value, grads), updates = found
    np.testing.assert_allclose(value, np.full(8, expected_value), rtol=1e-5)
    for device in range(8):
        many.close({name: g[device] for name, g in grads.items()}, expected)
        many.close({name: g[device] for name, g in updates.items()}, expected)


@pytest.mark.parametrize(
    ("perturb", "groups"),
    [(None, many.ONE_EACH), ("data", [many.EXAMPLES]), (("data",), [many.EXAMPLES])],
    ids=["each device its own", "one for all", "a tuple of one"],
)
def test_equals_one_device_with_the_same_groups(perturb, groups):
    params, x, y = many.problem()
    mapped = jax.pmap(many.both_forms("data", perturb), axis_name="data", in_axes=(None, 0, 0))
    check(
        mapped(params, x.reshape(8, 2, 6), y.reshape(8, 2, 4)),
        *many.reference(params, x, y, groups),
    )


@pytest.mark.parametrize(
    ("perturb", "groups"),
    [
        (None, many.ONE_EACH),
        ("inner", list(many.GRID.reshape(4, 4))),
        ("outer", list(many.GRID.transpose(1, 0, 2).reshape(2, 8))),
        (("outer", "inner"), [many.EXAMPLES]),
    ],
    ids=["each part its own", "groups of two", "groups of four", "one for all"],
)
def test_groups_are_a_vmap_inside_a_pmap(perturb, groups):
    """Four devices with two groups each; axes of pmap and of vmap are averaged over alike."""
    params, x, y = many.problem()
    inner = jax.vmap(
        many.both_forms(("outer", "inner"), perturb), axis_name="inner", in_axes=(None, 0, 0)
    )
    mapped = jax.pmap(
        inner, axis_name="outer", in_axes=(None, 0, 0), devices=jax.local_devices()[:4]
    )
    found = mapped(params, x.reshape(4, 2, 2, 6), y.reshape(4, 2, 2, 4))
    flat = jax.tree.map(lambda a: np.asarray(a).reshape(8, *a.shape[2:]), found)
    check(flat, *many.reference(params, x, y, groups))


def test_a_whole_training_step_keeps_the_replicas_alike():
    """Three steps of ASAM on stacked parameters and state, as users of pmap have them."""
    params, x, y = many.problem()
    tx = asam_jax.asam(optax.sgd(0.05, momentum=0.9), many.RHO, axis_name="data")

    @functools.partial(jax.pmap, axis_name="data", donate_argnums=(0, 1))
    def step(params, state, x, y):
        grad_fn = lambda w: jax.grad(loss)(w, x, y)  # noqa: E731
        updates, state = tx.update(grad_fn(params), state, params, grad_fn=grad_fn)
        return optax.apply_updates(params, updates), state

    stack = lambda tree: jax.tree.map(lambda a: jnp.stack([a] * 8), tree)  # noqa: E731
    replicas, state = stack(params), stack(tx.init(params))
    w, velocity = params, {name: 0.0 for name in params}
    for _ in range(3):
        replicas, state = step(replicas, state, x.reshape(8, 2, 6), y.reshape(8, 2, 4))
        _, grads = many.reference(w, x, y, many.ONE_EACH)
        velocity = {name: 0.9 * velocity[name] + grads[name] for name in w}
        w = {name: w[name] - 0.05 * velocity[name] for name in w}
    for device in range(8):
        many.close({name: a[device] for name, a in replicas.items()}, w)


def test_an_axis_that_is_not_mapped():
    params, x, y = many.problem()
    step = asam_jax.value_and_grad(loss, rho=many.RHO, axis_name="batch")
    mapped = jax.pmap(step, axis_name="data", in_axes=(None, 0, 0))
    with pytest.raises(ValueError, match="axis_name: 'batch' is not a mapped axis here"):
        mapped(params, x.reshape(8, 2, 6), y.reshape(8, 2, 4))
