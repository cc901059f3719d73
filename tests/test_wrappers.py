"""A step among optax's wrappers and line searches, and under flax.nnx.Optimizer."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import asam_jax

A, W, RHO, LR = np.array([1.0, 2.0, 0.5]), np.array([3.0, -2.0, 1.0]), 0.3, 0.1
SAM = dict(rho=RHO, operator=asam_jax.identity())

pytestmark = pytest.mark.usefixtures("flax_promotes")


def gradient(w):
    """Of sum(a w^2) / 2."""
    return A * w


def after_steps(w, steps=1):
    """SAM by hand, in float64."""
    for _ in range(steps):
        g = gradient(w)
        w = w - LR * gradient(w + RHO * g / np.linalg.norm(g))
    return w


def grad_fn(w):
    return jnp.asarray(A, jnp.float32) * w


def array(w=W):
    return jnp.asarray(w, jnp.float32)


class Model(nnx.Module):
    def __init__(self):
        self.w = nnx.Param(array())
        self.mean = nnx.BatchStat(jnp.ones(2))


def model_loss(model):
    return jnp.sum(jnp.asarray(A, jnp.float32) * model.w[...] ** 2) / 2 + jnp.sum(model.mean[...])


@pytest.mark.parametrize("boxes", [nnx.as_pure, lambda grads: grads], ids=["pure", "boxed"])
def test_nnx_optimizer_with_nnx_grad_as_grad_fn(boxes):
    model = Model()
    tx = optax.chain(asam_jax.sharpness_aware(**SAM), optax.sgd(LR, momentum=0.0))
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)

    def grad_fn(params):
        copy = nnx.clone(model)
        nnx.update(copy, params)
        return boxes(nnx.grad(model_loss)(copy))

    for _ in range(2):
        optimizer.update(model, nnx.grad(model_loss)(model), grad_fn=grad_fn)
    np.testing.assert_allclose(model.w[...], after_steps(W, 2), rtol=1e-5)

    # The momentum that nnx.Optimizer holds: for sgd's 0 it is the last gradient.
    params, state = nnx.as_pure((nnx.state(model, nnx.Param), optimizer.opt_state))
    at = asam_jax.momentum_ascent(params, optax.tree.get(state, "trace"), **SAM)
    g, w = gradient(after_steps(W)), after_steps(W, 2)
    g = gradient(after_steps(W) + RHO * g / np.linalg.norm(g))
    np.testing.assert_allclose(at["w"], w + RHO * g / np.linalg.norm(g), rtol=1e-5)


def quartic(w):
    return jnp.sum((w - 1) ** 4)


LINE_SEARCHES = {
    "lbfgs": optax.lbfgs(),
    "backtracking": optax.chain(optax.sgd(1.0), optax.scale_by_backtracking_linesearch(15)),
}


@pytest.mark.parametrize("name", LINE_SEARCHES)
def test_line_searches_lower_the_loss_at_w(name):
    tx, w = asam_jax.sam(LINE_SEARCHES[name], rho=0.05), jnp.zeros(2)

    @jax.jit
    def step(w, state):
        value, grad = jax.value_and_grad(quartic)(w)
        extra = dict(value=value, grad=grad, value_fn=quartic)
        updates, state = tx.update(grad, state, w, grad_fn=jax.grad(quartic), perturb=True, **extra)
        return optax.apply_updates(w, updates), state

    state, losses = tx.init(w), [2.0]
    for _ in range(12):
        w, state = step(w, state)
        losses.append(float(quartic(w)))
    assert max(np.diff(losses)) <= 0 and losses[-1] < 1e-3


def test_flatten_and_lookahead_as_the_base():
    params = {"kernel": array(), "bias": array()}
    f = lambda p: jax.tree.map(grad_fn, p)  # noqa: E731
    inside = asam_jax.sam(optax.flatten(optax.sgd(LR)), RHO)
    updates, _ = inside.update(f(params), inside.init(params), params, grad_fn=f)
    plain = asam_jax.sam(optax.sgd(LR), RHO)
    expected, _ = plain.update(f(params), plain.init(params), params, grad_fn=f)
    chex.assert_trees_all_close(updates, expected, rtol=1e-6)

    # Two steps of SAM from w, then fast and slow meet half-way.
    tx = optax.chain(
        asam_jax.sharpness_aware(ascent=optax.ema(0.0), **SAM),
        optax.lookahead(optax.sgd(LR), sync_period=2, slow_step_size=0.5),
    )
    both = optax.LookaheadParams.init_synced(array())
    state = tx.init(both)
    for _ in range(2):
        updates, state = tx.update(grad_fn(both.fast), state, both, grad_fn=grad_fn)
        both = optax.apply_updates(both, updates)
    np.testing.assert_allclose(both.slow, (W + after_steps(W, 2)) / 2, rtol=1e-6)


def test_inject_hyperparams_takes_the_other_arguments_unchanged():
    make = optax.inject_hyperparams(asam_jax.sharpness_aware, static_args=("operator",))
    tx = make(every=2, ascent=optax.ema(0.0), descent=asam_jax.wsam_descent(0), **SAM)
    g = grad_fn(array())
    updates, state = tx.update(g, tx.init(array()), array(), grad_fn=grad_fn)
    np.testing.assert_allclose(updates, g, rtol=1e-6)  # gamma = 0 descends along g
    assert int(state.hyperparams["every"]) == 2
