"""Steps of one gradient, at w + eps along what the optimizer remembers, against NumPy."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import many
import numpy as np
import optax
import pytest
from forms import LR, STEPS, batch, by_hand, climbed, mix, zeros

import asam_jax

loss = functools.partial(many.loss, jnp)


def trained(tx, **arguments):
    """Steps with one gradient each."""

    @jax.jit
    def step(params, state, x, y, rho):
        at = asam_jax.momentum_ascent(params, state, rho=rho, **arguments)
        updates, state = tx.update(jax.grad(loss)(at, x, y), state, params)
        return optax.apply_updates(params, updates), state

    params = jax.tree.map(jnp.asarray, many.problem()[0])
    state = tx.init(params)
    for number in range(STEPS):
        params, state = step(params, state, *batch(number), many.RHO)
    return params


@pytest.mark.parametrize("sign", [1, -1])
def test_along_the_momentum_of_sgd(sign):
    def rule(memory, number, w, gradient):
        m = memory.get("m", zeros(w))
        g = gradient(climbed(w, {n: sign * a for n, a in m.items()}))
        memory["m"] = mix(g, 0.9, m)
        return memory["m"]

    many.close(trained(optax.sgd(LR, momentum=0.9), sign=sign), by_hand(rule))


@pytest.mark.parametrize("decay", [0.0, 0.7])
def test_along_what_remember_keeps(decay):
    """decay = 0 is the last gradient; the base's own momentum is not looked at."""

    def rule(memory, number, w, gradient):
        m = memory.get("m", zeros(w))
        g = gradient(climbed(w, m))
        memory["m"] = {n: decay * m[n] + (1 - decay) * g[n] for n in g}
        memory["trace"] = mix(g, 0.5, memory.get("trace", zeros(w)))
        return memory["trace"]

    tx = optax.chain(asam_jax.remember(decay), optax.sgd(LR, momentum=0.5))
    many.close(trained(tx), by_hand(rule))


def test_along_the_last_gradient_less_the_momentum():
    def rule(memory, number, w, gradient):
        last, m = memory.get("last", zeros(w)), memory.get("m", zeros(w))
        memory["last"] = gradient(climbed(w, mix(last, -0.3, m)))
        memory["m"] = mix(memory["last"], 0.7, m)
        return memory["m"]

    tx = optax.chain(asam_jax.remember(), optax.sgd(LR, momentum=0.7))
    many.close(trained(tx, contrast=0.3), by_hand(rule))


@pytest.mark.usefixtures("flax_promotes")
def test_along_the_first_moment_of_adam():
    params, x, y = many.problem()
    tx = optax.adamw(1e-3)
    _, state = tx.update(many.gradient(params, x, y), tx.init(params), params)
    found = asam_jax.momentum_ascent(params, state, rho=many.RHO)
    many.close(found, climbed(params, many.gradient(params, x, y)))


class Named(NamedTuple):
    mu: jax.Array
    trace: jax.Array
    direction: jax.Array


ADAM, SGD = optax.adam(1e-3), optax.sgd(LR, momentum=0.9)
LABELS = Named("a", "b", "b")
MOVES = Named(True, True, False)
WRAPPED = {
    "adam": ADAM,
    "chain": optax.chain(asam_jax.remember(), ADAM, optax.trace(0.5), optax.trace(0.5)),
    "named_chain": optax.named_chain(("mu", SGD), ("trace", optax.scale(1.0))),
    "inject_hyperparams": optax.inject_hyperparams(optax.sgd)(LR, momentum=0.9),
    "partition": optax.partition({"a": ADAM, "b": optax.adam(1e-2)}, LABELS),
    "remember": optax.chain(asam_jax.remember(0.5), optax.partition({"a": ADAM, "b": SGD}, LABELS)),
    "masked": optax.masked(SGD, MOVES),
    "frozen": optax.partition({True: SGD, False: optax.set_to_zero()}, MOVES),
    "MultiSteps": optax.MultiSteps(SGD, 1).gradient_transformation(),
    "apply_if_finite": optax.apply_if_finite(optax.chain(optax.ema(0.5), SGD), 3),
    "schedule_free": optax.contrib.schedule_free(ADAM, 0.1),
}


@pytest.mark.usefixtures("flax_promotes")
@pytest.mark.parametrize("name", WRAPPED)
def test_parameters_may_have_the_names_of_fields(name):
    """After one update a momentum is along the gradient; 0 where a parameter has none."""
    draws = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
    w, g = Named(*draws[0]), Named(*draws[1])
    _, state = WRAPPED[name].update(g, WRAPPED[name].init(w), w)
    found = asam_jax.momentum_ascent(w, state, rho=0.5)
    moved = g._replace(direction=0 * g.direction) if name in ("masked", "frozen") else g
    many.close(found._asdict(), climbed(w._asdict(), moved._asdict(), 0.5))


def test_parameters_in_a_dict_may_have_them_too():
    w = {"mu": np.float32([1.0, -2.0]), "direction": np.float32([3.0]), "x": np.float32([2.0])}
    for tx in (SGD, optax.chain(asam_jax.remember(), SGD)):
        _, state = tx.update(w, tx.init(w), w)
        many.close(asam_jax.momentum_ascent(w, state, rho=0.5), climbed(w, w, 0.5))


def test_before_the_first_update_it_stands_at_w():
    params, _, _ = many.problem()
    tx = optax.sgd(LR, momentum=0.9)
    many.close(asam_jax.momentum_ascent(params, tx.init(params), rho=0.5), params)


def test_a_step_costs_one_gradient():
    """Of the two matrix products' size, as XLA counts it: one pass, not two."""
    params, x, y = many.problem()
    tx = optax.sgd(LR, momentum=0.9)
    state = tx.init(params)

    def step(params, state, rho):
        at = params
        if rho:
            at = asam_jax.momentum_ascent(params, state, rho=rho)
        return tx.update(jax.grad(loss)(at, x, y), state, params)

    def products(rho):
        text = str(jax.make_jaxpr(functools.partial(step, rho=rho))(params, state))
        return text.count("dot_general")

    assert products(0.5) == products(0.0) > 0


def test_what_cannot_be_remembered():
    params, _, _ = many.problem()
    with pytest.raises(ValueError, match=r"opt_state holds no momentum .*asam_jax\.remember"):
        asam_jax.momentum_ascent(params, optax.sgd(0.1).init(params), rho=0.5)
    two = optax.chain(optax.trace(0.9), optax.trace(0.5)).init(params)
    with pytest.raises(ValueError, match="opt_state holds 2 fields named 'trace'"):
        asam_jax.momentum_ascent(params, two, rho=0.5)
    labels = {name: min(number, 1) for number, name in enumerate(params)}
    mixed = optax.partition({0: SGD, 1: ADAM}, labels).init(params)
    with pytest.raises(ValueError, match=r"holds 'trace' for some parameters and 'mu' for others"):
        asam_jax.momentum_ascent(params, mixed, rho=0.5)
    momentum = optax.sgd(0.1, momentum=0.9).init(params)
    with pytest.raises(ValueError, match="sign must be 1 or -1, got 0"):
        asam_jax.momentum_ascent(params, momentum, rho=0.5, sign=0)
    with pytest.raises(ValueError, match=r"holds no momentum \(none of direction\)"):
        asam_jax.momentum_ascent(params, momentum, rho=0.5, contrast=0.1)
    with pytest.raises(ValueError, match="contrast must be at least 0"):
        asam_jax.momentum_ascent(params, momentum, rho=0.5, contrast=-0.1)
    with pytest.raises(ValueError, match="rho must be at least 0"):
        asam_jax.momentum_ascent(params, momentum, rho=-1.0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: asam_jax.sharpness_aware(0.5, every=0), "every must be a positive integer"),
        (lambda: asam_jax.sharpness_aware(0.5, every=2.5), "every must be a positive integer"),
        (lambda: asam_jax.sharpness_aware(0.5, every=jnp.ones(2)), "every must be a positive"),
        (lambda: asam_jax.sharpness_aware(0.5, ascent="ema"), "ascent must be an optax"),
        (lambda: asam_jax.sharpness_aware(0.5, descent="gsam"), "descent must be asam_jax.gsam"),
        (lambda: asam_jax.gsam_descent(-1.0), "alpha must be at least 0"),
        (lambda: asam_jax.wsam_descent(1.0), "gamma must be less than 1"),
        (lambda: asam_jax.look_descent(np.nan), "weight must be at least 0"),
        (lambda: asam_jax.friendly_ascent(-1.0), "sigma must be at least 0"),
        (lambda: asam_jax.friendly_ascent(decay=1.5), "decay must be at most 1"),
        (lambda: asam_jax.remember(-0.1), "decay must be at least 0"),
        (
            lambda: asam_jax.value_and_grad(sum, rho=0.5, ascent_fun=3),
            "ascent_fun must be callable",
        ),
    ],
)
def test_bad_arguments_are_named(make, message):
    with pytest.raises((ValueError, TypeError), match=message):
        make()
