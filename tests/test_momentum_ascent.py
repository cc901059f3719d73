"""Steps of one gradient, at w + eps along what the optimizer keeps, against NumPy."""

import jax
import jax.numpy as jnp
import many
import numpy as np
import optax
import pytest
from variants import LR, by_hand, mix, perturbed, trained, zeros

import asam_jax

loss = many.loss


def steps_along(tx, momentum):
    """Some steps with one gradient each, along what `momentum` takes from the state."""

    @jax.jit
    def step(params, state, x, y):
        at = asam_jax.momentum_ascent(params, momentum(state), rho=many.RHO)
        updates, state = tx.update(jax.grad(loss)(at, x, y), state, params)
        return optax.apply_updates(params, updates), state

    return trained(tx, step)[0]


def kept(field, factor=1.0):
    return lambda state: optax.tree.scale(factor, optax.tree.get(state, field))


@pytest.mark.parametrize("sign", [1, -1])
def test_along_the_momentum_of_sgd(sign):
    def rule(memory, number, w, batch):
        m = memory.get("m", zeros(w))
        g = batch.gradient(perturbed(w, {n: sign * a for n, a in m.items()}))
        memory["m"] = mix(g, 0.9, m)
        return memory["m"]

    many.close(steps_along(optax.sgd(LR, momentum=0.9), kept("trace", sign)), by_hand(rule))


@pytest.mark.parametrize("decay", [0.0, 0.7])
def test_along_what_remember_keeps(decay):
    """decay = 0 is the last gradient."""

    def rule(memory, number, w, batch):
        m = memory.get("m", zeros(w))
        g = batch.gradient(perturbed(w, m))
        memory["m"] = {n: decay * m[n] + (1 - decay) * g[n] for n in g}
        memory["trace"] = mix(g, 0.5, memory.get("trace", zeros(w)))
        return memory["trace"]

    tx = optax.chain(asam_jax.remember(decay), optax.sgd(LR, momentum=0.5))
    many.close(steps_along(tx, kept("direction")), by_hand(rule))


def test_along_the_last_gradient_less_the_momentum():
    def rule(memory, number, w, batch):
        last, m = memory.get("last", zeros(w)), memory.get("m", zeros(w))
        memory["last"] = batch.gradient(perturbed(w, mix(last, -0.3, m)))
        memory["m"] = mix(memory["last"], 0.7, m)
        return memory["m"]

    def momentum(state):
        return optax.tree.add_scale(kept("direction")(state), -0.3, kept("trace")(state))

    tx = optax.chain(asam_jax.remember(), optax.sgd(LR, momentum=0.7))
    many.close(steps_along(tx, momentum), by_hand(rule))


@pytest.mark.usefixtures("flax_promotes")
@pytest.mark.parametrize(
    ("tx", "field"),
    [
        (optax.adamw(1e-3), "mu"),
        (optax.inject_hyperparams(optax.sgd)(LR, momentum=0.9), "trace"),
        (optax.MultiSteps(optax.sgd(LR, 0.9), 1).gradient_transformation(), "trace"),
        (optax.apply_if_finite(optax.chain(asam_jax.remember(), optax.sgd(LR)), 3), "direction"),
        (optax.masked(optax.trace(0.9), {"kernel": True, "head": False}), "trace"),
    ],
)
def test_what_is_kept_under_wrappers(tx, field):
    """After one update a momentum is along the gradient; 0 where a parameter has none."""
    draws = np.random.default_rng(0).normal(size=(2, 2, 3)).astype(np.float32)
    w, g = ({"kernel": a, "head": b} for a, b in draws)
    _, state = tx.update(g, tx.init(w), w)
    found = asam_jax.momentum_ascent(w, optax.tree.get(state, field), rho=0.5)
    masked = isinstance(state, optax.MaskedState)
    many.close(found, perturbed(w, g | ({"head": 0 * g["head"]} if masked else {}), 0.5))


def test_before_the_first_update_it_is_w():
    params = jax.tree.map(jnp.asarray, many.problem()[0])
    state = optax.sgd(LR, momentum=0.9).init(params)
    many.close(asam_jax.momentum_ascent(params, kept("trace")(state), rho=0.5), params)
