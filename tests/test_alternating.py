"""alternating: two calls of update make one step of sharpness_aware."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import asam_jax

W = {"w": np.float32([3.0, -4.0, 1.0]), "bias": np.float32([0.5])}
BATCHES = np.random.default_rng(0).normal(size=(4, 5, 3)).astype(np.float32)


def gradient(params, x):
    return jax.grad(lambda p: jnp.mean(jnp.square(jnp.tanh(x @ p["w"]) + p["bias"])))(params)


def alternate(tx, steps=4, **extra):
    params = jax.tree.map(jnp.asarray, W)
    state = tx.init(params)
    for x in BATCHES[:steps]:
        for _ in range(2):
            updates, state = tx.update(gradient(params, x), state, params, **extra)
            params = optax.apply_updates(params, updates)
    return params, state


def once(tx, steps=4):
    params = jax.tree.map(jnp.asarray, W)
    state = tx.init(params)
    for x in BATCHES[:steps]:
        f = lambda p: gradient(p, x)  # noqa: B023, E731
        updates, state = tx.update(f(params), state, params, grad_fn=f)
        params = optax.apply_updates(params, updates)
    return params


@pytest.mark.parametrize("p", [2.0, jnp.inf])
@pytest.mark.parametrize("rho", [0.0, 0.5, optax.linear_schedule(0.1, 0.9, 3)])
def test_equals_sharpness_aware(rho, p):
    base = optax.chain(optax.add_decayed_weights(5e-2), optax.sgd(0.1, momentum=0.9))
    params, state = alternate(asam_jax.alternating(base, rho, p=p))
    expected = once(optax.chain(asam_jax.sharpness_aware(rho, p=p), base))
    chex.assert_trees_all_close(params, expected, rtol=2e-6, atol=1e-7)
    assert isinstance(state, asam_jax.AlternatingState) and int(state.count) == 4


def test_odd_calls_climb_by_eps():
    params = jax.tree.map(jnp.asarray, W)
    tx = asam_jax.alternating(optax.sgd(0.1), 0.5)
    grads = gradient(params, BATCHES[0])
    updates, state = tx.update(grads, tx.init(params), params)
    chex.assert_trees_all_close(updates, asam_jax.perturbation(params, grads, rho=0.5))
    assert isinstance(state, asam_jax.AlternatingState) and bool(state.ascended)
    chex.assert_trees_all_equal(state.params, params)


def test_one_copy_of_the_parameters_and_map_params():
    params = {"w": jnp.ones(1000)}
    tx = asam_jax.alternating(optax.sgd(0.1, momentum=0.9), 0.5)
    sizes = [jnp.size(leaf) for leaf in jax.tree.leaves(tx.init(params))]
    assert sorted(sizes) == [1, 1, 1000, 1000]  # count, phase; w and the base's momentum
    marked = optax.tree.map_params(
        tx, lambda _: "param", tx.init(params), transform_non_params=lambda _: "other"
    )
    assert sorted(jax.tree.leaves(marked)) == ["other", "other", "param", "param"]


def test_jitted_once_with_donation():
    traces = []
    tx = asam_jax.alternating(optax.sgd(0.1, momentum=0.9), 0.5)

    def step(params, state, x):
        traces.append(1)
        updates, state = tx.update(gradient(params, x), state, params)
        return optax.apply_updates(params, updates), state

    step = jax.jit(step, donate_argnums=(0, 1))
    params = jax.tree.map(jnp.array, W)
    state = tx.init(params)
    for x in BATCHES:
        params, state = step(*step(params, state, x), x)
    assert len(traces) == 1
    expected, _ = alternate(tx)
    chex.assert_trees_all_close(params, expected, rtol=1e-5)


def test_extra_arguments_go_to_the_base():
    tx = asam_jax.alternating(optax.polyak_sgd(), 0.1)
    chex.assert_tree_all_finite(alternate(tx, value=jnp.float32(0.3), stray=object())[0])


def test_state_and_updates_keep_the_dtype():
    params = jax.tree.map(lambda w: jnp.asarray(w, jnp.bfloat16), W)
    tx = asam_jax.alternating(optax.sgd(0.1), 0.5)
    updates, state = tx.update(params, tx.init(params), params)
    back, _ = tx.update(params, state, optax.apply_updates(params, updates))
    assert isinstance(state, asam_jax.AlternatingState)
    chex.assert_trees_all_equal_dtypes(updates, back, state.params, params)
