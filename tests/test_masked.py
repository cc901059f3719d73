"""Training some leaves only: frozen ones are neither perturbed nor updated."""

from typing import Any

import chex
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

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


def test_a_module_of_booleans_is_a_tree_although_it_can_be_called():
    """As in optax.masked; a module that is a function of the parameters is called."""
    model = eqx.filter_eval_shape(eqx.nn.MLP, 3, 1, 4, 1, key=jax.random.key(0))
    is_shape = lambda leaf: isinstance(leaf, jax.ShapeDtypeStruct)  # noqa: E731
    params = jax.tree.map(lambda s: np.full(s.shape, 2.0, np.float32), eqx.filter(model, is_shape))
    nothing = jax.tree.map(lambda _: False, params)

    class Last(eqx.Module):
        threshold: float = 0.5

        def __call__(self, params):
            return eqx.tree_at(lambda m: m.layers[-1].weight, nothing, self.threshold < 1)

    for mask in (Last(0.5)(params), Last(0.5), jax.tree.map(lambda _: False, model)):
        scales = asam_jax.masked(asam_jax.elementwise(0.5), mask)(params)
        trains = 0.0 if isinstance(mask, type(model)) and not mask.layers[-1].weight else 2.5
        scale = np.broadcast_to(scales.layers[-1].weight, (1, 4))
        np.testing.assert_array_equal(scale, np.full((1, 4), trains))
        assert not any(map(np.any, jax.tree.leaves((scales.layers[0], scales.layers[-1].bias))))


def test_a_mask_of_nnx_state_fits_every_form_of_the_parameters():
    """tree.map over nnx.state keeps the variables around the booleans; nnx.Optimizer hands pure."""
    state = nnx.state(nnx.eval_shape(lambda: nnx.Linear(2, 3, rngs=nnx.Rngs(0))), nnx.Param)
    state = jax.tree.map(lambda s: np.full(s.shape, 2.0, np.float32), state)
    mask = jax.tree.map(lambda w: w.ndim == 2, state)
    operator = asam_jax.masked(asam_jax.elementwise(0.5), mask)
    for params in (state, nnx.as_pure(state), nnx.to_pure_dict(state)):
        scales = operator(params)
        assert jax.tree.structure(scales) == jax.tree.structure(params)
        bias, kernel = jax.tree.leaves(scales)
        np.testing.assert_array_equal(kernel, np.full((2, 3), 2.5))
        np.testing.assert_array_equal(bias, np.zeros(1))


def test_names_find_the_prefix_in_other_containers():
    params = {"a": [jnp.ones(2), jnp.ones(2)], "b": {"c": jnp.ones(2)}}
    mask = {"a": (True, False), "b": True}
    scales = asam_jax.masked(asam_jax.identity(), mask)(params)
    assert jax.tree.structure(scales) == jax.tree.structure(params)
    assert [float(s.sum()) for s in jax.tree.leaves(scales)] == [1.0, 0.0, 1.0]


def test_a_mask_may_freeze_entries():
    w = {"w": jnp.array([1.0, 2.0]), "b": jnp.array([3.0, 4.0])}
    half = jnp.array([True, False])
    scales = asam_jax.masked(asam_jax.elementwise(0.0), {"w": half, "b": half})(w)
    chex.assert_trees_all_equal(scales, {"w": jnp.array([1.0, 0.0]), "b": jnp.array([1.0, 0.0])})


@pytest.mark.parametrize(
    ("mask", "error", "text"),
    [
        ({"backbone": "freeze", "head": "train"}, TypeError, r"mask\['backbone'\] must be a bool"),
        ({"backbone": False}, ValueError, r"mask says nothing about params\['head'\]"),
        ({**TRAINS, "haed": True}, ValueError, r"mask\['haed'\] belongs to no leaf of params"),
        ({"backbone": False, "head": None}, ValueError, r"nothing about params\['head'\]"),
    ],
)
def test_masks_that_do_not_fit_are_named(mask, error, text):
    with pytest.raises(error, match=f"^{text}" if text.startswith("mask") else text):
        asam_jax.masked(asam_jax.elementwise(), mask)(W)
