"""Groups and micro-batches on one device: m-sharpness by vmap, accumulation inside grad_fn."""

import functools

import jax
import jax.numpy as jnp
import many
import numpy as np
import optax
import oracle
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


def test_memory_grows_with_the_groups_that_are_computed_at_once():
    """vmap keeps w + eps and a gradient for each group."""
    params = {"kernel": jnp.ones((64, 256)), "bias": jnp.ones(256), "head": jnp.ones((256, 64))}
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    x, y = jnp.ones((8, 64)), jnp.ones((8, 64))

    def temporary(compute):
        lowered = jax.jit(functools.partial(compute, m=1)).lower(params, x, y)
        memory = lowered.compile().memory_analysis()
        assert memory is not None
        return memory.temp_size_in_bytes / size

    assert temporary(at_once) - temporary(in_turn) > 7


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


def test_multi_steps_is_another_method():
    """eps of the four micro-batches' mean gradient, then the last one's gradient alone."""
    params, x, y = many.problem()
    parts = list(zip(x.reshape(4, 4, -1), y.reshape(4, 4, -1), strict=True))
    tx = optax.MultiSteps(asam_jax.asam(optax.sgd(1.0), many.RHO), every_k_schedule=4)
    updates, state = None, tx.init(jax.tree.map(jnp.asarray, params))

    @jax.jit
    def update(state, x, y):
        grad_fn = lambda w: jax.grad(loss)(w, x, y)  # noqa: E731
        return tx.update(grad_fn(params), state, params, grad_fn=grad_fn)

    with jax.numpy_dtype_promotion("standard"):  # MultiSteps divides by its count
        for part in parts:
            updates, state = update(state, *part)
    eps = oracle.perturbation(params, many.gradient(params, x, y), rho=many.RHO)
    last = many.gradient({name: params[name] + eps[name] for name in params}, *parts[-1])
    many.close(updates, {name: -g for name, g in last.items()})
