"""g18: one gradient that is not finite costs one step; the others are those without it."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.training import dynamic_scale as dynamic_scale_lib

import asam_jax

STEPS, LR, RHO = 7, 0.05, 0.1
X = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
Y = np.float32(X @ [1.0, -2.0, 0.5, 3.0] + 0.3)

sharpness_aware = functools.partial(asam_jax.sharpness_aware, RHO)
VARIANTS = {
    "asam": dict(),
    "friendly": dict(ascent=asam_jax.friendly_ascent(0.8, 0.6)),
    "ema, with its count": dict(ascent=optax.ema(0.5)),
    "looksam": dict(every=3, descent=asam_jax.looksam_descent(0.4)),
    "both": dict(every=2, ascent=optax.ema(0.5), descent=asam_jax.looksam_descent(0.4)),
}


def grad_fn_of(factor):
    """The gradient, of which one entry is not finite where factor is inf or NaN."""

    def grad_fn(w):
        grads = jax.grad(lambda w: jnp.mean((X @ w["kernel"] + w["bias"] - Y) ** 2))(w)
        return {**grads, "kernel": grads["kernel"] * jnp.ones(4).at[2].set(factor)}

    return grad_fn


def skips(tx):
    """Around a transformation it looks at the first gradient alone; behind it, at what counts."""
    return optax.apply_if_finite(tx, 1000)


def two_gradients(tx):
    @jax.jit
    def step(w, state, first, second):
        grads = grad_fn_of(first)(w)
        updates, state = tx.update(grads, state, w, grad_fn=grad_fn_of(second))
        return updates, state

    return step


def one_gradient(tx):
    @jax.jit
    def step(w, state, first, second):
        at = asam_jax.momentum_ascent(w, optax.tree.get(state, "direction"), rho=RHO)
        return tx.update(grad_fn_of(first * second)(at), state, w)

    return step


def trained(tx, make_step, factors, left_out=None, count=True):
    """Parameters after each step; a step that is left out at most counts."""
    w: Any = {"kernel": jnp.zeros(4), "bias": jnp.zeros(())}
    seen, step = [], make_step(tx)
    state = tx.init(w)
    for number, (first, second) in enumerate(factors):
        if number == left_out:
            if count:
                state = (state[0]._replace(step=state[0].step + 1), *state[1:])
        else:
            updates, state = step(w, state, jnp.float32(first), jnp.float32(second))
            finite = all(bool(jnp.all(jnp.isfinite(u))) for u in updates.values())
            w = optax.apply_updates(w, updates) if finite else w  # a loop that looks for itself
        seen.append(np.append(w["kernel"], w["bias"]))
    return np.stack(seen)


def factors(bad, which, value):
    one = {"first": (value, 1.0), "second": (1.0, value), "both": (value, value)}[which]
    return [one if number == bad else (1.0, 1.0) for number in range(STEPS)]


FINE = [(1.0, 1.0)] * STEPS


@pytest.mark.usefixtures("flax_promotes")
@pytest.mark.parametrize("wrapper", ["behind", "around", "nowhere"])
@pytest.mark.parametrize("name", VARIANTS)
def test_that_step_alone_is_lost(name, wrapper):
    sgd = optax.sgd(LR, momentum=0.5 if wrapper == "behind" else None)  # see `skips`
    link = sharpness_aware(**VARIANTS[name])
    fine = optax.chain(link, sgd)
    tx = skips(fine) if wrapper == "around" else optax.chain(link, skips(sgd))
    tx = fine if wrapper == "nowhere" else tx
    step = two_gradients(tx)
    for bad, which, value in (0, "first", np.inf), (3, "second", np.nan), (4, "both", -np.inf):
        perturbs = which != "second" or bad % VARIANTS[name].get("every", 1) == 0
        got = trained(tx, lambda _: step, factors(bad, which, value))
        left_out = bad if perturbs else None
        counts = wrapper != "around" or which == "second"
        expected = trained(fine, two_gradients, FINE, left_out, count=counts)
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-7)
        moved = np.any(np.diff(got, axis=0, prepend=0 * got[:1]), axis=1)
        assert moved.tolist() == [number != left_out for number in range(STEPS)]


@pytest.mark.usefixtures("flax_promotes")
@pytest.mark.parametrize("wrapper", ["behind", "around"])
@pytest.mark.parametrize(
    ("make", "make_step"),
    [
        (lambda base: optax.chain(asam_jax.remember(0.5), base), one_gradient),
        (lambda base: base, one_gradient),
        (lambda base: asam_jax.decoupled_wsam(base, LR, RHO, gamma=0.7), two_gradients),
    ],
    ids=["remember", "momentum_ascent", "decoupled_wsam"],
)
def test_nor_is_more_lost_by_the_others(make, make_step, wrapper):
    """alternating: see test_alternating.py."""
    unseen = make_step is two_gradients and wrapper == "around"
    base = optax.sgd(LR, momentum=None if unseen else 0.5)
    fine = make(base)
    tx = make(skips(base)) if wrapper == "behind" else skips(fine)
    for bad, which, value in (0, "first", np.inf), (3, "second", np.nan), (4, "both", np.inf):
        got = trained(tx, make_step, factors(bad, which, value))
        expected = trained(fine, make_step, FINE, left_out=bad, count=False)
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.usefixtures("flax_promotes")
def test_a_loss_scale_that_falls_until_it_fits():
    """Flax's DynamicScale and float16: the first scales overflow; nothing of it is kept."""
    tx = optax.chain(
        asam_jax.sharpness_aware(RHO, ascent=asam_jax.friendly_ascent(0.8, 0.6)), optax.sgd(LR)
    )

    def loss(w):
        half = jnp.float16(X) @ w["kernel"].astype(jnp.float16) + w["bias"].astype(jnp.float16)
        return jnp.mean((half - jnp.float16(Y)) ** 2).astype(jnp.float32)

    @jax.jit
    def step(w, state, scale):
        next_scale, _, value, grads = scale.value_and_grad(loss)(w)
        grad_fn = lambda w: scale.value_and_grad(loss)(w)[-1]  # noqa: E731
        updates, state = tx.update(grads, state, w, grad_fn=grad_fn)
        finite = jnp.all(jnp.array([jnp.all(jnp.isfinite(u)) for u in updates.values()]))
        stepped = optax.apply_updates(w, updates)
        w = jax.tree.map(functools.partial(jnp.where, finite), stepped, w)
        return w, state, next_scale, value, finite

    w: Any = {"kernel": jnp.zeros(4), "bias": jnp.zeros(())}
    state, scale = tx.init(w), dynamic_scale_lib.DynamicScale(scale=jnp.float32(2.0**18))
    values, finite = [], []
    for _ in range(16):
        w, state, scale, value, is_finite = step(w, state, scale)
        values.append(float(value))
        finite.append(bool(is_finite))
    lost = finite.index(True)
    assert lost > 0 and all(finite[lost:])  # it overflowed, and recovered
    w = {"kernel": jnp.zeros(4), "bias": jnp.zeros(())}
    plain = tx.init(w)
    for number in range(lost, 15):
        updates, plain = tx.update(grad_fn_of(1.0)(w), plain, w, grad_fn=grad_fn_of(1.0))
        w = optax.apply_updates(w, updates)
        error = np.mean((X @ w["kernel"] + w["bias"] - Y) ** 2)
        np.testing.assert_allclose(values[number + 1], error, rtol=2e-2)
