"""g06: what is frozen is ignored by every refinement, also where its gradient is NaN."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import asam_jax

LR, RHO = 0.1, 0.5
draw = np.random.default_rng(0).normal
W = {"back": np.float32(draw(size=(4, 6))), "head": np.float32(draw(size=(6, 1)))}
W["rest"] = np.zeros(2, np.float32)
X, Y = np.float32(draw(size=(16, 4))), np.float32(draw(size=(16, 1)))
ROWS = np.arange(6)[:, None] < 4  # of the head, which train in the mask of entries
WHOLE = {"back": False, "head": True, "rest": False}
ENTRIES = {"back": np.zeros((4, 6), bool), "head": ROWS, "rest": False}


def loss(w):
    return jnp.mean((jnp.tanh(X @ w["back"]) @ w["head"] - Y) ** 2)


def broken(w, rows):
    """With the derivative of sqrt at 0: NaN for what is frozen."""
    still = jnp.sum(w["rest"] ** 2) + jnp.sum((w["head"] - W["head"])[rows:] ** 2)
    return loss(w) + jnp.sqrt(still)


def alone(trained, rows):
    """The loss of the rows of the head that train."""
    return loss({**W, "head": jnp.concatenate([trained["head"], W["head"][rows:]])})


def with_extra(make, steps=3):
    def run(operator, w, loss, base):
        tx = make(operator, optax.chain(*base))
        state = tx.init(w)
        for _ in range(steps):
            updates, state = tx.update(jax.grad(loss)(w), state, w, grad_fn=jax.grad(loss))
            w = optax.apply_updates(w, updates)
        return w

    return run


def refined(**arguments):
    return with_extra(
        lambda operator, base: optax.chain(
            asam_jax.sharpness_aware(RHO, operator=operator, **arguments), base
        )
    )


def with_alternating(operator, w, loss, base):
    tx = asam_jax.alternating(optax.chain(*base), RHO, operator=operator)
    state = tx.init(w)
    for _ in range(4):
        updates, state = tx.update(jax.grad(loss)(w), state, w)
        w = optax.apply_updates(w, updates)
    return w


def with_memory(operator, w, loss, base):
    stop, sgd = base
    tx = optax.chain(stop, asam_jax.remember(0.5), sgd)  # it is not told what is frozen
    state = tx.init(w)
    for _ in range(3):
        at = asam_jax.momentum_ascent(w, state, rho=RHO, operator=operator)
        updates, state = tx.update(jax.grad(loss)(at), state, w)
        w = optax.apply_updates(w, updates)
    return w


def with_value_and_grad(operator, w, loss, base):
    grads = asam_jax.value_and_grad(loss, rho=RHO, operator=operator)(w)[1]
    tx = optax.chain(*base)
    return optax.apply_updates(w, tx.update(grads, tx.init(w), w)[0])


VARIANTS = {
    "asam": refined(),
    "p = inf": refined(p=np.inf),
    "friendly": refined(ascent=asam_jax.friendly_ascent(0.8, 0.6)),
    "ema": refined(ascent=optax.ema(0.5, debias=False)),
    "gsam": refined(descent=asam_jax.gsam_descent(0.5)),
    "gsam of the loss": refined(descent=asam_jax.gsam_descent(0.5, minimize_fp=False)),
    "stable": refined(descent=asam_jax.stable_descent()),
    "wsam": refined(descent=asam_jax.wsam_descent(0.7)),
    "looksam": refined(every=2, descent=asam_jax.looksam_descent(0.7)),
    "decoupled_wsam": with_extra(
        lambda operator, base: asam_jax.decoupled_wsam(base, LR, RHO, gamma=0.7, operator=operator)
    ),
    "alternating": with_alternating,
    "momentum_ascent": with_memory,
    "value_and_grad": with_value_and_grad,
}


def frozen_base(mask):
    """SGD on what trains; zero, whatever the gradient, on the rest."""
    stop = optax.stateless(
        lambda updates, params: jax.tree.map(
            lambda u, m: jnp.where(jnp.broadcast_to(m, u.shape), u, 0.0), updates, mask
        )
    )
    return stop, optax.sgd(LR)


@pytest.mark.parametrize("mask", [WHOLE, ENTRIES], ids=["leaves", "entries"])
@pytest.mark.parametrize("name", VARIANTS)
def test_a_step_is_that_of_what_trains_alone(name, mask):
    run, rows = VARIANTS[name], 6 if mask is WHOLE else 4
    operator = asam_jax.masked(asam_jax.elementwise(), mask)
    expected = run(
        asam_jax.elementwise(),
        {"head": W["head"][:rows]},
        functools.partial(alone, rows=rows),
        (optax.identity(), optax.sgd(LR)),
    )["head"]
    for of in (loss, functools.partial(broken, rows=rows)):
        got = run(operator, W, of, frozen_base(mask))
        np.testing.assert_allclose(got["head"][:rows], expected, rtol=1e-5)
        for leaf in ("back", "rest"):
            np.testing.assert_array_equal(got[leaf], W[leaf])
        np.testing.assert_array_equal(got["head"][rows:], W["head"][rows:])


def test_gsam_of_the_head_by_numpy():
    g = np.asarray(jax.grad(loss)(W)["head"], np.float64)
    t = np.abs(W["head"]) + 0.01
    at = {**W, "head": np.float32(W["head"] + RHO * t**2 * g / np.linalg.norm(t * g))}
    new = np.asarray(jax.grad(loss)(at)["head"], np.float64)
    unit = new / np.linalg.norm(new)
    expected = new - 0.5 * (g - np.sum(g * unit) * unit)
    operator = asam_jax.masked(asam_jax.elementwise(), WHOLE)
    tx = asam_jax.sharpness_aware(RHO, operator=operator, descent=asam_jax.gsam_descent(0.5))
    updates, _ = tx.update(jax.grad(loss)(W), tx.init(W), W, grad_fn=jax.grad(loss))
    np.testing.assert_allclose(updates["head"], expected, rtol=1e-5)
