"""One contract, run over every transformation: what optax's own wrappers expect."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import optax
import pytest
from contract import ALL, EXACT, FACTORIES, W, batch, gradient, run

import asam_jax


@pytest.fixture(params=ALL)
def factory(request):
    return ALL[request.param]


@pytest.fixture(params=FACTORIES)
def in_front(request):
    """Those in front of a base optimizer, which sees nothing but what they hand it."""
    return FACTORIES[request.param]


@pytest.fixture(params=EXACT)
def exact(request):
    """Those that keep nothing but a step count."""
    return FACTORIES[request.param]


def test_is_an_extra_args_transformation_that_ignores_strays(factory):
    tx = factory(optax.sgd(0.1))
    assert isinstance(tx, optax.GradientTransformationExtraArgs)
    plain, _ = run(tx)
    stray, _ = run(tx, value=1.0, something_else=object())
    chex.assert_trees_all_equal(plain, stray)


def test_hands_extra_arguments_on_to_the_base(in_front):
    """polyak_sgd steps by min(value / ||g||^2, max_learning_rate) g, with the handed-on value."""
    x, params = batch(0), jax.tree.map(jnp.asarray, W)
    f = gradient(x)
    handed, _ = in_front(optax.identity()).update(
        f(params), in_front(optax.identity()).init(params), params, grad_fn=f
    )
    tx = in_front(optax.polyak_sgd(max_learning_rate=1e3))
    updates, _ = tx.update(f(params), tx.init(params), params, grad_fn=f, value=jnp.float32(0.02))
    square = sum(float(jnp.sum(g**2)) for g in jax.tree.leaves(handed))
    expected = jax.tree.map(lambda g: -0.02 / square * g, handed)
    chex.assert_trees_all_close(updates, expected, rtol=1e-5)


def test_traces_once_over_data_rho_and_schedule_steps(factory):
    traces = []
    tx = optax.inject_hyperparams(lambda rho: factory(optax.sgd(0.1), rho))(rho=0.1)
    scheduled = factory(optax.sgd(0.1), optax.linear_schedule(0.0, 0.5, 3))

    @jax.jit
    def step(params, states, x):
        traces.append(1)
        f = gradient(x)
        updates, injected = tx.update(f(params), states[0], params, grad_fn=f)
        params = optax.apply_updates(params, updates)
        updates, other = scheduled.update(f(params), states[1], params, grad_fn=f)
        return optax.apply_updates(params, updates), (injected, other)

    params = jax.tree.map(jnp.asarray, W)
    states: Any = (tx.init(params), scheduled.init(params))
    for seed in range(4):
        states[0].hyperparams["rho"] = jnp.float32(0.1 * (seed + 1))
        params, states = step(params, states, batch(seed))
    assert len(traces) == 1


def test_the_count_of_a_state_is_the_base_optimizers(exact):
    """Adam's count is the only one, so that optax.tree.get finds it."""
    with jax.numpy_dtype_promotion("standard"):
        _, state = run(exact(optax.adam(1e-3)))
    assert int(optax.tree.get(state, "count")) == 3


@pytest.mark.parametrize("rho", [0.2, optax.constant_schedule(0.2)], ids=["number", "schedule"])
def test_inject_hyperparams_takes_asam_sam_and_sharpness_aware_as_they_are(rho):
    sgd = optax.sgd(0.1)
    injected = optax.inject_hyperparams(asam_jax.asam)(sgd, rho=rho)
    params, state = run(injected)
    assert float(state.hyperparams["rho"]) == pytest.approx(0.2)
    chex.assert_trees_all_close(params, run(asam_jax.asam(sgd, 0.2))[0], rtol=1e-5)
    injected = optax.inject_hyperparams(asam_jax.sharpness_aware)(rho=rho)
    chex.assert_trees_all_close(run(optax.chain(injected, sgd))[0], params, rtol=1e-5)
    params, _ = run(optax.inject_hyperparams(asam_jax.sam)(sgd, rho=rho))
    chex.assert_trees_all_close(params, run(asam_jax.sam(sgd, 0.2))[0], rtol=1e-5)


def test_named_chain_and_chain_agree(in_front):
    named = optax.named_chain(
        ("sharpness_aware", in_front(optax.identity())), ("base", optax.sgd(0.05, momentum=0.9))
    )
    expected, _ = run(in_front(optax.sgd(0.05, momentum=0.9)))
    chex.assert_trees_all_equal(run(named)[0], expected)


def test_rho_zero_is_the_base_optimizer_bit_for_bit(factory):
    for zero in (0.0, optax.constant_schedule(0.0)):
        params, _ = run(factory(optax.sgd(0.05, momentum=0.9), zero))
        expected, _ = run(optax.with_extra_args_support(optax.sgd(0.05, momentum=0.9)))
        chex.assert_trees_all_equal(params, expected)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_updates_keep_their_dtype(factory, dtype):
    params, _ = run(factory(optax.sgd(0.1)), params=jax.tree.map(lambda w: w.astype(dtype), W))
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(dtype)}
    chex.assert_tree_all_finite(params)


def test_state_passes_map_params(factory):
    tx = factory(optax.sgd(0.1, momentum=0.9))
    state = tx.init({"w": jnp.ones(3)})
    marked = optax.tree.map_params(
        tx, lambda _: "param", state, transform_non_params=lambda _: "other"
    )
    expected = jax.tree.map(lambda leaf: "param" if leaf.shape == (3,) else "other", state)
    assert marked == expected
    assert "param" in jax.tree.leaves(marked)


def test_parameters_and_state_may_be_donated(factory):
    tx = factory(optax.sgd(0.05, momentum=0.9))

    def step(params, state, x):
        f = gradient(x)
        updates, state = tx.update(f(params), state, params, grad_fn=f)
        return optax.apply_updates(params, updates), state

    donating = jax.jit(step, donate_argnums=(0, 1))
    params = jax.tree.map(jnp.array, W)
    state = tx.init(params)
    for seed in range(2):
        old = params
        params, state = donating(params, state, batch(seed))
        assert all(leaf.is_deleted() for leaf in jax.tree.leaves(old))
    chex.assert_trees_all_close(params, run(tx, steps=2)[0], rtol=1e-5)


def test_apply_if_finite_sees_both_passes(factory):
    x, params = batch(0), jax.tree.map(jnp.asarray, W)
    good, bad = gradient(x), lambda p: jax.tree.map(lambda g: g * jnp.nan, gradient(x)(p))
    tx = factory(optax.apply_if_finite(optax.sgd(0.1), 5))
    for first, second in ((bad, good), (good, bad)):
        updates, state = tx.update(first(params), tx.init(params), params, grad_fn=second)
        chex.assert_trees_all_equal(updates, jax.tree.map(jnp.zeros_like, params))
        assert int(optax.tree.get(state, "notfinite_count")) == 1
    around = optax.apply_if_finite(factory(optax.sgd(0.1)), 5)
    updates, _ = around.update(bad(params), around.init(params), params, grad_fn=good)
    chex.assert_trees_all_equal(updates, jax.tree.map(jnp.zeros_like, params))


def test_multi_steps_makes_eps_from_the_mean_and_steps_along_the_last_batch(factory):
    params = jax.tree.map(jnp.asarray, W)
    fs = [gradient(batch(0)), gradient(batch(1))]
    with jax.numpy_dtype_promotion("standard"):  # MultiSteps itself multiplies by booleans
        multi = optax.MultiSteps(factory(optax.sgd(0.1)), 2)
        updates, state = None, multi.init(params)
        for f in fs:
            updates, state = multi.update(f(params), state, params, grad_fn=f)
    mean = jax.tree.map(lambda a, b: (a + b) / 2, fs[0](params), fs[1](params))
    tx = factory(optax.sgd(0.1))
    expected, _ = tx.update(mean, tx.init(params), params, grad_fn=fs[1])
    chex.assert_trees_all_close(updates, expected, rtol=1e-5, atol=1e-7)
