"""One contract, run over every variant: what optax's own wrappers expect."""

import functools
from typing import Any

import chex
import jax
import jax.numpy as jnp
import many
import optax
import pytest
from variants import ALL, LR, VARIANTS, optimizer, step_of, trained

import asam_jax

PARAMS, X, Y = many.problem()
MOMENTUM = optax.sgd(LR, momentum=0.9)
each = pytest.mark.parametrize("name", ALL)


def grad_fn_of(x, y):
    """Gradients in the dtype of the parameters."""
    return lambda w: jax.grad(many.loss)(w, *(a.astype(w["bias"].dtype) for a in (x, y)))


@each
def test_is_an_extra_args_transformation_that_ignores_strays(name):
    tx = optimizer(name)
    assert isinstance(tx, optax.GradientTransformationExtraArgs)
    arguments = PARAMS, tx.init(PARAMS), X, Y
    stray = jax.make_jaxpr(step_of(tx, value=1.0, something_else=object()))(*arguments)
    assert str(stray) == str(jax.make_jaxpr(step_of(tx))(*arguments))


def test_hands_extra_arguments_on_to_the_base():
    """polyak_sgd steps by min(value / ||g||^2, max_learning_rate) g, with the handed-on value."""
    handed = many.reference(PARAMS, X, Y, many.WHOLE)[1]
    tx = optimizer("exact", optax.polyak_sgd(max_learning_rate=1e3))
    params, _ = trained(tx, jax.jit(step_of(tx, value=jnp.float32(0.02))), 1)
    square = sum((g**2).sum() for g in handed.values())
    many.close(params, {n: PARAMS[n] - 0.02 / square * g for n, g in handed.items()})


@each
def test_traces_once_over_data_rho_and_schedule_steps(name):
    traces = []
    make = functools.partial(optimizer, name, optax.sgd(LR))
    tx = optax.inject_hyperparams(lambda rho: make(rho=rho))(rho=0.1)
    scheduled = make(rho=optax.linear_schedule(0.0, 0.5, 3))

    @jax.jit
    def step(params, states, x, y):
        traces.append(1)
        params, injected = step_of(tx)(params, states[0], x, y)
        params, other = step_of(scheduled)(params, states[1], x, y)
        return params, (injected, other)

    params: Any = jax.tree.map(jnp.asarray, PARAMS)
    states: Any = (tx.init(params), scheduled.init(params))
    for seed in range(2):
        states[0].hyperparams["rho"] = jnp.float32(0.1 * (seed + 1))
        params, states = step(params, states, *many.problem(seed)[1:])
    assert len(traces) == 1


def test_the_count_of_a_state_is_the_base_optimizers():
    """Adam's count is the only one, so that optax.tree.get finds it."""
    state = optimizer("exact", optax.adam(1e-3)).init(PARAMS)
    assert int(optax.tree.get(state, "count")) == 0


@pytest.mark.parametrize("rho", [0.2, optax.constant_schedule(0.2)], ids=["number", "schedule"])
@pytest.mark.parametrize("make", [asam_jax.asam, asam_jax.sam, asam_jax.sharpness_aware])
def test_inject_hyperparams_takes_it_as_it_is(make, rho):
    bases, rest = [optax.sgd(LR)], optax.identity()
    if make is asam_jax.sharpness_aware:  # which stands in front of its base
        bases, rest = [], optax.sgd(LR)
    tx = optax.chain(optax.inject_hyperparams(make)(*bases, rho=rho), rest)
    params, state = trained(tx, steps=2)
    assert float(state[0].hyperparams["rho"]) == pytest.approx(0.2)
    expected, _ = trained(optax.chain(make(*bases, rho=0.2), rest), steps=2)
    chex.assert_trees_all_close(params, expected, rtol=1e-5)


ZERO = optax.constant_schedule(0.0)
without = functools.cache(lambda: trained(optax.with_extra_args_support(MOMENTUM), steps=2)[0])
RESTS = [(name, 0.0) for name in ALL] + [("exact", ZERO), ("decoupled WSAM", ZERO)]


@pytest.mark.parametrize(("name", "rho"), RESTS)
def test_rho_zero_is_the_base_optimizer_bit_for_bit(name, rho):
    chex.assert_trees_all_equal(trained(optimizer(name, MOMENTUM, rho), steps=2)[0], without())


BARE = {name: optimizer(name, optax.identity()) for name in VARIANTS} | {
    "decoupled WSAM": optimizer("decoupled WSAM"),
    "remember": optax.with_extra_args_support(asam_jax.remember(0.5)),
    "alternating": asam_jax.alternating(optax.sgd(LR), many.RHO),
}


@pytest.mark.parametrize("name", BARE)
@pytest.mark.parametrize(
    ("of_params", "of_grads"),
    [
        (jnp.float32, jnp.float32),
        (jnp.float32, jnp.bfloat16),
        (jnp.bfloat16, jnp.bfloat16),
        (jnp.float16, jnp.float32),
    ],
)
def test_states_and_updates_keep_their_dtypes_in_a_scan(name, of_params, of_grads, flax_promotes):
    """google-deepmind/optax 1038, patrick-kidger/optimistix 103, instadeepai/Mava 1184."""
    tx = BARE[name]

    def step(carry, _):
        w, state = carry
        grad_fn = lambda w: optax.tree.cast(grad_fn_of(X, Y)(w), of_grads)  # noqa: E731
        updates, state = tx.update(grad_fn(w), state, w, grad_fn=grad_fn)
        if name != "alternating":  # whose steps would be lost in a narrow dtype
            assert {u.dtype for u in jax.tree.leaves(updates)} == {jnp.dtype(of_grads)}
        return (optax.tree.cast(optax.apply_updates(w, updates), of_params), state), None

    params = optax.tree.cast(PARAMS, of_params)
    jax.eval_shape(lambda w: jax.lax.scan(step, (w, tx.init(w)), length=2), params)


@each
def test_state_passes_map_params(name):
    tx = optimizer(name, MOMENTUM)
    state = tx.init({"w": jnp.ones(3)})
    marked = optax.tree.map_params(
        tx, lambda _: "param", state, transform_non_params=lambda _: "other"
    )
    expected = jax.tree.map(lambda leaf: "param" if leaf.shape == (3,) else "other", state)
    assert marked == expected
    assert "param" in jax.tree.leaves(marked)


@each
def test_multi_steps_makes_eps_from_the_mean_and_steps_along_the_last_batch(name, flax_promotes):
    fs = [grad_fn_of(*many.problem(seed)[1:]) for seed in range(2)]
    tx, multi = optimizer(name), optax.MultiSteps(optimizer(name), 2)

    @jax.jit
    def both():
        updates, state = None, multi.init(PARAMS)
        for f in fs:
            updates, state = multi.update(f(PARAMS), state, PARAMS, grad_fn=f)
        mean = jax.tree.map(lambda a, b: (a + b) / 2, *(f(PARAMS) for f in fs))
        return updates, tx.update(mean, tx.init(PARAMS), PARAMS, grad_fn=fs[1])[0]

    many.close(*both())
