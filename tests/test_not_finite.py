"""Gradients that are not finite reach the updates and leave every state as it was."""

import functools
from typing import Any

import chex
import jax
import jax.numpy as jnp
import many
import numpy as np
import optax
import pytest
from flax.training.dynamic_scale import DynamicScale
from variants import ALL, LR, RULES, by_hand, optimizer, step_of, trained

import asam_jax

PARAMS, X, Y = many.problem()
SKIP = optax.apply_if_finite(optax.sgd(LR), 100)


def gradient(factor):
    return lambda w: jax.tree.map(lambda g: factor * g, jax.grad(many.loss)(w, X, Y))


def kept(state):
    """A state without its step count."""
    return state._replace(step=0)


@pytest.mark.parametrize("name", ALL)
def test_the_updates_are_not_finite_and_the_state_stays(name):
    """Whichever of the two gradients it is, in a state that has seen steps."""
    tx = optimizer(name, optax.identity())
    own = (lambda state: state) if name == "decoupled WSAM" else (lambda state: state[0])
    state = tx.init(PARAMS)

    @jax.jit
    def update(state, first, second):
        return tx.update(gradient(first)(PARAMS), state, PARAMS, grad_fn=gradient(second))

    for _ in range(3):
        _, state = update(state, 1.0, 1.0)
    for first, second in ((np.nan, 1.0), (np.inf, 1.0), (1.0, np.nan), (1.0, -np.inf)):
        updates, new = update(state, first, second)
        if name != "every third" or second == 1.0:  # whose fourth step takes a second gradient
            assert not all(bool(jnp.isfinite(u).all()) for u in jax.tree.leaves(updates))
        chex.assert_trees_all_equal(kept(own(new)), kept(own(state)))
        assert int(own(new).step) == int(own(state).step) + 1


@pytest.mark.parametrize("name", ALL)
def test_an_overflow_costs_its_step_alone(name):
    """g18: behind it apply_if_finite skips that step; the next are steps of the same variant."""
    lost = (2, 3)  # the fourth step is one of those that `every` perturbs
    params, _ = trained(optimizer(name, SKIP), steps=6, lost=lost)
    many.close(params, by_hand(RULES[name], steps=6, lost=lost))


@pytest.mark.parametrize("name", ["exact", "Friendly SAM", "decoupled WSAM"])
def test_around_it_apply_if_finite_skips_what_the_first_gradient_tells(name):
    tx = optax.apply_if_finite(optimizer(name), 100)
    many.close(trained(tx, lost=(1,))[0], by_hand(RULES[name], lost=(1,)))


def test_what_is_remembered_and_the_ascent_along_it():
    tx = optax.chain(asam_jax.remember(0.5), SKIP)
    update = jax.jit(lambda factor, state: tx.update(gradient(factor)(PARAMS), state, PARAMS))
    updates: Any = None
    state: Any = tx.init(PARAMS)
    for factor in (1.0, np.nan, np.inf):
        updates, state = update(factor, state)
        assert bool(jnp.any(updates["kernel"])) == (factor == 1.0)
    expected = jax.tree.map(lambda g: 0.5 * g, many.gradient(PARAMS, X, Y))
    many.close(state[0].direction, expected)
    ascent = jax.jit(functools.partial(asam_jax.momentum_ascent, rho=0.5))
    chex.assert_tree_all_finite(ascent(PARAMS, state[0].direction))


@pytest.mark.parametrize("name", ["exact", "LookSAM", "decoupled WSAM"])
def test_one_devices_overflow_is_a_step_that_all_skip(name):
    tx = optimizer(name, SKIP, axis_name="data")
    factors = np.float32([1, 1, 1, np.inf, 1, 1, 1, 1])

    def step(params, state, x, y, factor):
        loss = lambda w, x, y: factor * many.loss(w, x, y)  # noqa: E731
        return step_of(tx, loss=loss)(params, state, x, y)

    step = jax.pmap(step, axis_name="data", in_axes=(None, None, 0, 0, 0), out_axes=(None, None))
    x, y = X.reshape(8, 2, 6), Y.reshape(8, 2, 4)
    params: Any
    params, state = step(PARAMS, tx.init(PARAMS), x, y, np.ones(8, np.float32))
    same, state = step(params, state, x, y, factors)
    many.close(same, params, tolerance=0)
    moved: Any = step(same, state, x, y, np.ones(8, np.float32))[0]
    assert not jnp.array_equal(moved["kernel"], params["kernel"])
    assert all(bool(jnp.isfinite(w).all()) for w in moved.values())


@pytest.mark.usefixtures("flax_promotes")
def test_a_loss_scale_that_falls_until_it_fits():
    """Flax's DynamicScale and float16: the first scales overflow; nothing of it is kept."""
    tx = optimizer("Friendly SAM")
    loss = lambda w: many.loss(*jax.tree.map(jnp.float16, (w, X, Y))).astype(jnp.float32)  # noqa: E731

    @jax.jit
    def step(w, state, scale):
        scale, _, value, grads = scale.value_and_grad(loss)(w)
        grad_fn = lambda w: scale.value_and_grad(loss)(w)[-1]  # noqa: E731
        updates, state = tx.update(grads, state, w, grad_fn=grad_fn)
        finite = jnp.isfinite(optax.tree.norm(updates))
        w = jax.tree.map(lambda a, u: jnp.where(finite, a + u, a), w, updates)
        return w, state, scale, value, finite

    def losses(scale, steps):
        """Of the steps that were taken."""
        w, state, scale = PARAMS, tx.init(PARAMS), DynamicScale(scale=jnp.float32(scale))
        taken = []
        for _ in range(steps):
            w, state, scale, value, finite = step(w, state, scale)
            taken += [float(value)] if finite else []
        return taken

    falling = losses(2.0**18, 16)
    assert 8 < len(falling) < 16 and falling[-1] < 0.7 * falling[0]
    np.testing.assert_allclose(falling, losses(2.0**8, len(falling)), rtol=1e-2)
