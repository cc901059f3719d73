"""alternating: two calls of update make one step of sharpness_aware."""

import functools

import chex
import jax
import jax.numpy as jnp
import many
import numpy as np
import optax
import pytest
from variants import LR as RATE
from variants import by_hand as steps_by_hand
from variants import trained

import asam_jax


def pairs_of(tx):
    """A step of training: two calls of update with the same batch."""

    def step(params, state, x, y):
        for _ in range(2):
            updates, state = tx.update(jax.grad(many.loss)(params, x, y), state, params)
            params = optax.apply_updates(params, updates)
        return params, state

    return step


@pytest.mark.parametrize("rho", [0.0, many.RHO, optax.linear_schedule(0.1, 0.6, 5)])
def test_it_takes_the_steps_of_asam(rho):
    def rule(memory, number, w, batch):
        radius = float(rho(number)) if callable(rho) else rho
        return batch.second(w, radius) if radius else batch.gradient(w)

    tx = asam_jax.alternating(optax.sgd(RATE), rho)
    params, state = trained(tx, jax.jit(pairs_of(tx), donate_argnums=(0, 1)))
    many.close(params, steps_by_hand(rule))
    assert int(state.step) == 5


def test_odd_calls_move_to_w_plus_eps():
    params, x, y = many.problem()
    tx = asam_jax.alternating(optax.sgd(0.1), 0.5)
    grads = jax.grad(many.loss)(params, x, y)
    updates, state = tx.update(grads, tx.init(params), params)
    many.close(updates, asam_jax.perturbation(params, grads, rho=0.5))
    assert bool(state.perturbed)
    chex.assert_trees_all_equal(state.params, params)


def test_one_copy_of_the_parameters_and_map_params():
    params = {"w": jnp.ones(1000)}
    tx = asam_jax.alternating(optax.sgd(0.1, momentum=0.9), 0.5)
    sizes = [jnp.size(leaf) for leaf in jax.tree.leaves(tx.init(params))]
    assert sorted(sizes) == [1, 1, 1, 1000, 1000]  # step, phase, finite; w and the base's momentum
    marked = optax.tree.map_params(
        tx, lambda _: "param", tx.init(params), transform_non_params=lambda _: "other"
    )
    assert sorted(jax.tree.leaves(marked)) == ["other"] * 3 + ["param"] * 2


def test_extra_arguments_go_to_the_base():
    w = jnp.ones(3)
    tx = asam_jax.alternating(optax.polyak_sgd(), 0.0)
    _, state = tx.update(w, tx.init(w), w, value=jnp.float32(0.3), stray=object())
    updates, _ = tx.update(w, state, w, value=jnp.float32(0.3), stray=object())
    np.testing.assert_allclose(updates, -0.1 * w, rtol=1e-6)  # -value / ||g||^2 g


A, TARGETS = np.array([1.0, 2.0, 0.5]), np.random.default_rng(1).normal(size=(6, 3))
START, RHO, LR, DECAY = np.array([1.0, -2.0, 0.5]), 0.2, 0.1, 0.9


def by_hand(bad, wrapper):
    """Where the parameters stand after each of 12 calls, call number `bad` overflowing: float64."""
    w, momentum, at, seen = START, np.zeros(3), START, []
    for step, target in enumerate(TARGETS):
        gradient = A * (at - target)
        perturbs, descends = bad != 2 * step, bad != 2 * step + 1
        if perturbs:
            at = w + RHO * gradient / np.linalg.norm(gradient)
        seen.append(at)
        if descends and (perturbs or wrapper == "outside"):
            momentum = DECAY * momentum + A * (at - target)
            at = w = w - LR * momentum
        elif wrapper == "none":
            at = w = np.full(3, np.nan)
        elif wrapper == "inside":
            at = w  # outside, the call that would return to w is hidden
        seen.append(at)
    return np.stack(seen)


@pytest.mark.parametrize("wrapper", ["inside", "none", "outside"])
def test_an_overflow_at_any_call_costs_one_step_and_leaves_the_pairs_in_step(wrapper):
    """Outside, with the keyword: a call after a hidden first one is a step of base alone, and eps
    after a hidden second one is made at the old w + eps.
    """
    base = optax.sgd(LR, momentum=DECAY)
    skipping = functools.partial(optax.apply_if_finite, max_consecutive_errors=3)
    tx = asam_jax.alternating(
        skipping(base) if wrapper == "inside" else base, RHO, operator=asam_jax.identity()
    )
    tx = skipping(tx) if wrapper == "outside" else tx

    @jax.jit
    def step(w, state, target, factor, perturb):
        grads = factor * jnp.asarray(A, jnp.float32) * (w - target)
        extra = dict(perturb=perturb) if wrapper == "outside" else {}
        updates, state = tx.update(grads, state, w, **extra)
        return optax.apply_updates(w, updates), state

    for bad in (-1, 0, 3, 6, 9):
        w = jnp.asarray(START, jnp.float32)
        state, seen = tx.init(w), []
        for call in range(12):
            factor = np.float32(np.inf if call == bad else 1.0)
            target = TARGETS[call // 2].astype(np.float32)
            w, state = step(w, state, target, factor, call % 2 == 0)
            seen.append(w)
        seen = np.where(np.isfinite(seen), seen, np.nan)
        np.testing.assert_allclose(seen, by_hand(bad, wrapper), rtol=1e-5, atol=1e-5)
        if wrapper != "none":
            assert int(optax.tree.get(state, "total_notfinite")) == (bad >= 0)
        if wrapper != "outside":
            assert int(state.step) == 6 and not state.perturbed


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_narrow_gradients_of_float32_parameters_lose_no_steps(dtype):
    target, w = np.array([0.2, 0.1, 0.3]), START
    for _ in range(100):
        scales, gradient = np.abs(w), 2 * (w - target)
        eps = 0.5 * scales**2 * gradient / np.linalg.norm(scales * gradient)
        w = w - 1e-4 * 2 * (w + eps - target)

    tx = asam_jax.alternating(optax.sgd(1e-4), 0.5)

    @jax.jit
    def step(w, state):
        grads = (2 * (w - jnp.asarray(target, jnp.float32))).astype(dtype)
        updates, state = tx.update(grads, state, w)
        return optax.apply_updates(w, updates), state, updates

    got = updates = jnp.asarray(START, jnp.float32)
    state = tx.init(got)
    for _ in range(200):
        got, state, updates = step(got, state)
    assert updates.dtype == jnp.float32
    np.testing.assert_allclose(got - START.astype(np.float32), w - START, rtol=5e-3)


@pytest.mark.usefixtures("flax_promotes")  # optax.apply_updates adds float32 to bfloat16
def test_wide_gradients_return_narrow_parameters_to_w_exactly():
    w = jnp.asarray(np.random.default_rng(0).normal(size=64), jnp.bfloat16)
    tx, at = asam_jax.alternating(optax.adam(0.0), 0.5), w
    state = tx.init(w)
    assert state.params.dtype == jnp.bfloat16
    for call in range(2):
        updates, state = tx.update(jnp.ones(64, jnp.float32), state, at)
        at = optax.apply_updates(at, updates)
        assert bool(jnp.array_equal(at, w)) == (call == 1)


def test_the_keyword_spares_the_condition():
    w = jnp.ones(3)
    tx = asam_jax.alternating(optax.sgd(0.1), 0.5)
    state = tx.init(w)
    for perturb, conditions in ((None, 1), (True, 0), (False, 0)):
        update = functools.partial(tx.update, perturb=perturb)
        text = str(jax.jit(update).lower(w, state, w).compile().as_text())
        assert text.count(" conditional(") == conditions
