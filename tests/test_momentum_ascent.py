"""Steps of one gradient, at w + eps along what the optimizer remembers, against NumPy."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import many
import numpy as np
import optax
import pytest
from variants import LR, by_hand, mix, perturbed, trained, zeros

import asam_jax

loss = many.loss


def steps_along(tx, **arguments):
    """Some steps with one gradient each."""

    @jax.jit
    def step(params, state, x, y):
        at = asam_jax.momentum_ascent(params, state, rho=many.RHO, **arguments)
        updates, state = tx.update(jax.grad(loss)(at, x, y), state, params)
        return optax.apply_updates(params, updates), state

    return trained(tx, step)[0]


@pytest.mark.parametrize("sign", [1, -1])
def test_along_the_momentum_of_sgd(sign):
    def rule(memory, number, w, batch):
        m = memory.get("m", zeros(w))
        g = batch.gradient(perturbed(w, {n: sign * a for n, a in m.items()}))
        memory["m"] = mix(g, 0.9, m)
        return memory["m"]

    many.close(steps_along(optax.sgd(LR, momentum=0.9), sign=sign), by_hand(rule))


@pytest.mark.parametrize("decay", [0.0, 0.7])
def test_along_what_remember_keeps(decay):
    """decay = 0 is the last gradient; the base's own momentum is not looked at."""

    def rule(memory, number, w, batch):
        m = memory.get("m", zeros(w))
        g = batch.gradient(perturbed(w, m))
        memory["m"] = {n: decay * m[n] + (1 - decay) * g[n] for n in g}
        memory["trace"] = mix(g, 0.5, memory.get("trace", zeros(w)))
        return memory["trace"]

    tx = optax.chain(asam_jax.remember(decay), optax.sgd(LR, momentum=0.5))
    many.close(steps_along(tx), by_hand(rule))


def test_along_the_last_gradient_less_the_momentum():
    def rule(memory, number, w, batch):
        last, m = memory.get("last", zeros(w)), memory.get("m", zeros(w))
        memory["last"] = batch.gradient(perturbed(w, mix(last, -0.3, m)))
        memory["m"] = mix(memory["last"], 0.7, m)
        return memory["m"]

    tx = optax.chain(asam_jax.remember(), optax.sgd(LR, momentum=0.7))
    many.close(steps_along(tx, contrast=0.3), by_hand(rule))


class Named(NamedTuple):
    mu: jax.Array
    trace: jax.Array
    direction: jax.Array


ADAM, SGD = optax.adam(1e-3), optax.sgd(LR, momentum=0.9)
LABELS = Named("a", "b", "b")
TRAINS = Named(True, True, False)
WRAPPED = {
    "adamw": optax.adamw(1e-3),
    "chain": optax.chain(asam_jax.remember(), ADAM, optax.trace(0.5), optax.trace(0.5)),
    "named_chain": optax.named_chain(("mu", SGD), ("trace", optax.scale(1.0))),
    "inject_hyperparams": optax.inject_hyperparams(optax.sgd)(LR, momentum=0.9),
    "partition": optax.partition({"a": ADAM, "b": optax.adam(1e-2)}, LABELS),
    "remember": optax.chain(asam_jax.remember(0.5), optax.partition({"a": ADAM, "b": SGD}, LABELS)),
    "frozen": optax.partition({True: SGD, False: optax.set_to_zero()}, TRAINS),
    "MultiSteps": optax.MultiSteps(SGD, 1).gradient_transformation(),
    "apply_if_finite": optax.apply_if_finite(optax.chain(optax.ema(0.5), SGD), 3),
}


@pytest.mark.usefixtures("flax_promotes")
@pytest.mark.parametrize("name", WRAPPED)
def test_parameters_may_have_the_names_of_fields(name):
    """After one update a momentum is along the gradient; 0 where a parameter has none."""
    draws = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
    w, g = Named(*draws[0]), Named(*draws[1])
    _, state = WRAPPED[name].update(g, WRAPPED[name].init(w), w)
    found = asam_jax.momentum_ascent(w, state, rho=0.5)
    kept = g._replace(direction=0 * g.direction) if name == "frozen" else g
    many.close(found._asdict(), perturbed(w._asdict(), kept._asdict(), 0.5))


def test_before_the_first_update_it_is_w():
    params, _, _ = many.problem()
    many.close(asam_jax.momentum_ascent(params, SGD.init(params), rho=0.5), params)


LABELLED = optax.partition({0: SGD, 1: ADAM}, {"kernel": 0, "bias": 1, "head": 1})


@pytest.mark.parametrize(
    ("tx", "message"),
    [
        (optax.sgd(0.1), r"opt_state holds no momentum .*asam_jax\.remember"),
        (optax.chain(optax.trace(0.9), SGD), r"opt_state holds 2 fields named 'trace'"),
        (LABELLED, r"opt_state holds .* which differ in scale; put asam_jax\.remember"),
        (optax.rmsprop(1e-3, momentum=0.9), r"points downhill.*asam_jax\.remember"),
        (optax.lars(1e-3, momentum=0.9), r"points downhill.*asam_jax\.remember"),
    ],
)
def test_what_cannot_be_remembered(tx, message):
    params = jax.tree.map(jnp.asarray, many.problem()[0])
    with pytest.raises(ValueError, match=f"(?s){message}"):
        asam_jax.momentum_ascent(params, tx.init(params), rho=0.5)


def test_arguments_of_momentum_ascent():
    params, _, _ = many.problem()
    state = SGD.init(params)
    for arguments, message in [
        (dict(sign=0), "sign must be 1 or -1, got 0"),
        (dict(contrast=0.1), "holds no momentum .*direction"),
        (dict(contrast=-0.1), "contrast must be at least 0"),
    ]:
        with pytest.raises(ValueError, match=message):
            asam_jax.momentum_ascent(params, state, rho=0.5, **arguments)
