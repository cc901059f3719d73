"""Every variant of a step against the same step written out in NumPy float64."""

import functools

import chex
import jax
import jax.numpy as jnp
import many
import numpy as np
import optax
import pytest
from variants import (
    ALL,
    LR,
    RULES,
    STEPS,
    by_hand,
    mix,
    optimizer,
    orthogonal,
    perturbed,
    trained,
    zeros,
)

import asam_jax

loss = many.loss


@pytest.mark.parametrize("name", RULES)
def test_a_variant_takes_the_steps_of_its_paper(name):
    many.close(trained(optimizer(name))[0], by_hand(RULES[name]))


@pytest.mark.parametrize("last", [0.5, -0.3])
def test_a_schedule_of_rho_reads_the_step(last):
    """A negative radius points downhill: nothing is clamped."""
    rho = optax.linear_schedule(0.1, last, STEPS)
    rule = lambda memory, number, w, batch: batch.second(w, float(rho(number)))  # noqa: E731
    params, state = trained(optax.chain(asam_jax.sharpness_aware(rho), optax.sgd(LR)))
    many.close(params, by_hand(rule))
    assert int(state[0].step) == STEPS


@pytest.mark.parametrize("jit", [True, False])
def test_the_second_gradient_is_taken_where_every_says(jit):
    """The gradient function reports each time it runs."""
    runs = []
    w = jnp.array([3.0, -2.0])

    def grad_fn(w):
        jax.debug.callback(lambda: runs.append(1))
        return 2 * w

    tx = asam_jax.sharpness_aware(0.5, every=3)
    step = lambda state: tx.update(w, state, w, grad_fn=grad_fn)[1]  # noqa: E731
    step, state, seen = jax.jit(step) if jit else step, tx.init(w), []
    for _ in range(5):
        state = jax.block_until_ready(step(state))
        jax.effects_barrier()
        seen.append(len(runs))
    assert seen == [1, 1, 1, 2, 2]


def test_perturb_overrules_every():
    params, x, y = many.problem()
    grad_fn = lambda w: jax.grad(loss)(w, x, y)  # noqa: E731
    tx = asam_jax.sharpness_aware(many.RHO, every=2)

    @functools.partial(jax.jit, static_argnames="static")
    def update(state, static, traced):
        perturb = traced if static is None else static
        return tx.update(grad_fn(params), state, params, grad_fn=grad_fn, perturb=perturb)

    second = many.reference(params, x, y, many.WHOLE)[1]
    plain = many.gradient(params, x, y)
    state = tx.init(params)
    for static, traced, expected in [
        (False, None, plain),
        (True, None, second),
        (None, True, second),
        (None, False, plain),
        (None, None, second),
        (None, None, plain),
    ]:
        updates, state = update(state, static, traced)
        many.close(updates, expected)


@pytest.mark.parametrize("perturb", [True, np.False_, np.array(False), jnp.array(True)])
def test_a_known_perturb_traces_one_branch(perturb):
    calls = []
    w = jnp.array([3.0, -2.0])
    tx = asam_jax.sharpness_aware(0.5)
    grad_fn = lambda w: calls.append(1) or w  # noqa: E731
    updates, _ = tx.update(w, tx.init(w), w, grad_fn=grad_fn, perturb=perturb)
    assert len(calls) == int(perturb)
    assert bool(jnp.array_equal(updates, w)) != bool(perturb)


def test_nothing_or_one_tree_is_kept():
    params, _, _ = many.problem()
    size = sum(a.size for a in params.values())

    def kept(tx):
        return sum(a.size for a in jax.tree.leaves(tx.init(params))) // size

    expected = {"LookSAM": 1, "Friendly SAM": 1}
    for name in RULES:
        assert kept(optimizer(name)) == expected.get(name, 0), name
    assert kept(asam_jax.remember()) == 1


def test_a_gradient_of_a_part_of_the_batch_may_make_eps():
    params, x, y = many.problem()
    at = perturbed(params, many.gradient(params, x[:4], y[:4]))
    expected = many.gradient(at, x, y)

    tx = asam_jax.sharpness_aware(many.RHO)
    part = jax.grad(loss)(params, x[:4], y[:4])
    grad_fn = lambda w: jax.grad(loss)(w, x, y)  # noqa: E731
    many.close(tx.update(part, tx.init(params), params, grad_fn=grad_fn)[0], expected)

    step = asam_jax.value_and_grad(
        lambda w, x, y: (loss(w, x, y), x[0, 0]),
        rho=many.RHO,
        has_aux=True,
        ascent_fun=lambda w, x, y: loss(w, x[:4], y[:4]),
    )
    (value, aux), grads = jax.jit(step)(params, x, y)
    many.close(grads, expected)
    np.testing.assert_allclose(value, many.numpy_loss(np, at, x, y), rtol=1e-5)
    assert aux == x[0, 0]


def test_refinements_combine():
    def rule(memory, number, w, batch):
        g = batch.gradient(w)
        if number % 2:
            return g
        m = memory["m"] = mix({n: 0.4 * g[n] for n in g}, 0.6, memory.get("m", zeros(w)))
        new = batch.gradient(perturbed(w, mix(g, -0.8, m)))
        return mix(new, -0.3, orthogonal(g, new))

    ascent, descent = asam_jax.friendly_ascent(0.8, 0.6), asam_jax.gsam_descent(0.3)
    tx = asam_jax.sharpness_aware(many.RHO, every=2, ascent=ascent, descent=descent)
    many.close(trained(optax.chain(tx, optax.sgd(LR)))[0], by_hand(rule))


@pytest.mark.parametrize("name", ALL)
def test_a_zero_gradient_leaves_zero(name, flax_promotes):
    """jax-ml/jax 475, google-deepmind/optax 1743: also no false alarm where NaNs are looked for."""
    params, _, _ = many.problem()
    tx, nothing = optimizer(name), jax.tree.map(jnp.zeros_like, params)
    state = tx.init(params)
    with jax.debug_nans(True):
        for _ in range(2):
            updates, state = tx.update(nothing, state, params, grad_fn=lambda w: nothing)
            chex.assert_trees_all_equal(updates, nothing)


@pytest.mark.parametrize(
    "rate", [LR, optax.linear_schedule(LR, 0.0, STEPS)], ids=["number", "schedule"]
)
def test_decoupled_wsam_keeps_sharpness_out_of_the_momentum(rate):
    """Momentum 0.9 along g alone; then w -= rate(step) * gamma / (1 - gamma) * (g' - g)."""

    def rule(memory, number, w, batch):
        g = batch.gradient(w)
        memory["m"] = mix(g, 0.9, memory.get("m", zeros(w)))
        weight = (float(rate(number)) if callable(rate) else rate) / LR * 0.7 / 0.3
        return mix(memory["m"], weight, mix(batch.second(w), -1, g))

    tx = asam_jax.decoupled_wsam(optax.sgd(LR, momentum=0.9), rate, many.RHO, gamma=0.7)
    params, state = trained(tx)
    many.close(params, by_hand(rule))
    assert int(state.step) == STEPS


def test_decoupled_wsam_without_perturbation_is_the_base():
    params, x, y = many.problem()
    tx = optimizer("decoupled WSAM")
    grads = jax.grad(loss)(params, x, y)
    updates, _ = tx.update(grads, tx.init(params), params, grad_fn=jax.grad(loss), perturb=False)
    many.close(updates, {n: -LR * g for n, g in many.gradient(params, x, y).items()})
