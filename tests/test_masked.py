"""Training some leaves only: frozen ones are neither perturbed nor updated."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import asam_jax

W = {"backbone": {"w": jnp.array([1.0, -2.0]), "v": jnp.array([0.7])}, "head": jnp.array([3.0])}
TRAINS = {"backbone": False, "head": True}


def loss(p):
    return (
        jnp.sum(p["backbone"]["w"] ** 2) * jnp.sin(p["head"][0]) ** 2 + p["backbone"]["v"][0] ** 3
    )


@pytest.mark.parametrize("p", [1.0, 1.5, 2.0, jnp.inf])
@pytest.mark.parametrize("mask", [TRAINS, lambda _: TRAINS], ids=["tree", "function"])
def test_frozen_leaves_are_left_out_of_eps_and_of_its_norm(mask, p):
    grads = jax.grad(loss)(W)
    operator = asam_jax.masked(asam_jax.elementwise(), mask)
    eps = asam_jax.perturbation(W, grads, rho=0.5, operator=operator, p=p)
    chex.assert_trees_all_equal(eps["backbone"], jax.tree.map(jnp.zeros_like, W["backbone"]))
    alone = asam_jax.perturbation(W["head"], grads["head"], rho=0.5, p=p)
    np.testing.assert_allclose(eps["head"], alone, rtol=1e-6)


def test_the_whole_step_equals_training_the_subtree_alone():
    tx = optax.chain(
        asam_jax.sharpness_aware(0.5, operator=asam_jax.masked(asam_jax.elementwise(), TRAINS)),
        optax.partition({True: optax.sgd(0.1, momentum=0.9), False: optax.set_to_zero()}, TRAINS),
    )
    params: Any = W
    state = tx.init(W)
    sub_tx = asam_jax.asam(optax.sgd(0.1, momentum=0.9), 0.5)
    head, sub_state = W["head"], sub_tx.init(W["head"])
    for _ in range(3):
        updates, state = tx.update(jax.grad(loss)(params), state, params, grad_fn=jax.grad(loss))
        params = optax.apply_updates(params, updates)
        head_grad = jax.grad(lambda h: loss({**W, "head": h}))
        updates, sub_state = sub_tx.update(head_grad(head), sub_state, head, grad_fn=head_grad)
        head = optax.apply_updates(head, updates)
    chex.assert_trees_all_equal(params["backbone"], W["backbone"])
    np.testing.assert_allclose(params["head"], head, rtol=1e-6)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda tx: optax.masked(tx, TRAINS),
        lambda tx: optax.partition({True: tx, False: optax.set_to_zero()}, TRAINS),
    ],
    ids=["masked", "partition"],
)
@pytest.mark.parametrize(
    "make",
    [lambda: asam_jax.asam(optax.sgd(0.1)), lambda: asam_jax.alternating(optax.sgd(0.1), 0.5)],
)
def test_placeholders_are_named_with_the_way_out(make, wrap):
    tx = wrap(make())
    with pytest.raises(ValueError, match=r"MaskedNode placeholders.*asam_jax\.masked"):
        tx.update(jax.grad(loss)(W), tx.init(W), W, grad_fn=jax.grad(loss))
