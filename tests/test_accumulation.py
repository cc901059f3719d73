"""Groups and micro-batches on one device: m-sharpness by vmap, accumulation inside grad_fn."""

import functools

import jax
import jax.numpy as jnp
import many
import numpy as np
import optax
import pytest

import asam_jax

loss = many.loss
step = asam_jax.value_and_grad(loss, rho=many.RHO)


def at_once(params, x, y, m):
    """Value and gradient with an eps for each m examples, all groups at once."""
    groups = jax.tree.map(lambda a: a.reshape(-1, m, *a.shape[1:]), (x, y))
    values, grads = jax.vmap(step, in_axes=(None, 0, 0))(params, *groups)
    return jax.tree.map(lambda a: a.mean(axis=0), (values, grads))


def in_turn(params, x, y, m):
    """The same, one group after the other; a group is every (batch / m)-th example."""
    mean = optax.microbatching.AccumulationType.MEAN
    return optax.microbatch(step, (1, 2), m, mean)(params, x, y)


@pytest.mark.parametrize(("compute", "order"), [(at_once, "C"), (in_turn, "F")])
def test_groups_on_one_device(compute, order, m=4):
    params, x, y = many.problem()
    value, grads = jax.jit(compute, static_argnames="m")(params, x, y, m=m)
    groups = np.arange(many.BATCH).reshape((-1, m), order=order)
    expected_value, expected = many.reference(params, x, y, groups)
    assert float(value) == pytest.approx(expected_value, rel=1e-5)
    many.close(grads, expected)


def by_scan(params, x, y):
    """The mean gradient of four micro-batches."""
    parts = jax.tree.map(lambda a: a.reshape(4, -1, *a.shape[1:]), (x, y))

    def add(total, part):
        return jax.tree.map(jnp.add, total, jax.grad(loss)(params, *part)), None

    total, _ = jax.lax.scan(add, jax.tree.map(jnp.zeros_like, params), parts)
    return jax.tree.map(lambda a: a * 0.25, total)


def test_accumulation_inside_grad_fn_is_the_whole_batch():
    params, x, y = many.problem()
    tx = asam_jax.sharpness_aware(many.RHO)

    @jax.jit
    def update(params):
        grad_fn = functools.partial(by_scan, x=x, y=y)
        return tx.update(grad_fn(params), tx.init(params), params, grad_fn=grad_fn)[0]

    many.close(update(params), many.reference(params, x, y, many.WHOLE)[1])
