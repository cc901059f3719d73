"""Gradients that are not finite reach the updates and leave every state as it was."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import many
import numpy as np
import optax
import pytest
from variants import ALL, LR, optimizer, step_of, trained

import asam_jax

PARAMS, X, Y = many.problem()
SKIP = optax.apply_if_finite(optax.sgd(LR), 100)


def gradient(factor):
    return lambda w: jax.tree.map(lambda g: factor * g, jax.grad(many.loss)(w, X, Y))


def kept(state):
    """A state without its step count."""
    return state._replace(step=0)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("name", ALL)
def test_the_updates_are_not_finite_and_the_state_stays(name, value):
    """Whichever of the two gradients it is, in a state that has seen steps."""
    tx = optimizer(name, optax.identity())
    own = (lambda state: state) if name == "decoupled WSAM" else (lambda state: state[0])
    params, state = trained(tx, steps=3)

    @jax.jit
    def update(state, first, second):
        return tx.update(gradient(first)(params), state, params, grad_fn=gradient(second))

    for first, second in ((value, 1.0), (1.0, value)):
        updates, new = update(state, first, second)
        if name != "every third" or first == value:  # whose fourth step takes a second gradient
            assert not all(bool(jnp.isfinite(u).all()) for u in jax.tree.leaves(updates))
        chex.assert_trees_all_equal(kept(own(new)), kept(own(state)))
        assert int(own(new).step) == int(own(state).step) + 1


@pytest.mark.parametrize("name", ALL)
def test_one_overflow_costs_one_step(name):
    """Behind it apply_if_finite skips that step; the next one is a step of the same variant."""
    tx = optimizer(name, SKIP)

    def step(params, state, x, y, factor):
        grad_fn = lambda w: jax.tree.map(  # noqa: E731
            lambda g: factor * g, jax.grad(many.loss)(w, x, y)
        )
        updates, state = tx.update(grad_fn(params), state, params, grad_fn=grad_fn)
        return optax.apply_updates(params, updates), state

    step, params = jax.jit(step), jax.tree.map(jnp.asarray, PARAMS)
    state, moved = tx.init(params), []
    for number in range(6):
        factor = np.float32(np.inf if number == 2 else 1.0)
        new, state = step(params, state, *many.problem(seed=number)[1:], factor)
        moved.append(not jnp.array_equal(new["kernel"], params["kernel"]))
        params = new
    assert moved == [number != 2 for number in range(6)]


def test_what_is_remembered_and_the_ascent_along_it():
    tx = optax.chain(asam_jax.remember(0.5), SKIP)
    updates: Any = None
    state: Any = tx.init(PARAMS)
    for factor in (1.0, np.nan, np.inf):
        updates, state = tx.update(gradient(factor)(PARAMS), state, PARAMS)
        assert bool(jnp.any(updates["kernel"])) == (factor == 1.0)
    expected = jax.tree.map(lambda g: 0.5 * g, many.gradient(PARAMS, X, Y))
    many.close(state[0].direction, expected)
    chex.assert_tree_all_finite(asam_jax.momentum_ascent(PARAMS, state[0].direction, rho=0.5))


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
