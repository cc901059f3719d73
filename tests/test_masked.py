"""Training some parameters only: frozen ones are not perturbed and nowhere taken into account."""

from typing import Any

import chex
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from variants import ALL, optimizer

import asam_jax

W = {"back": jnp.array([[1.0, -2.0]]), "head": jnp.array([[3.0, 0.5]]), "rest": jnp.zeros(2)}
TRAINS = {"back": False, "head": True, "rest": False}
X = np.random.default_rng(0).normal(size=(8, 2)).astype(np.float32)


def of_head(head):
    return jnp.mean(jnp.sin(jnp.tanh(X * W["back"]) * head - X[:, :1]) ** 2)


def loss(w):
    """The gradient at w["rest"] is NaN."""
    smooth = jnp.mean(jnp.sin(jnp.tanh(X * w["back"]) * w["head"] - X[:, :1]) ** 2)
    return smooth + jnp.sqrt(jnp.sum(w["rest"] ** 2))


def three_steps(tx, params, loss, trained):
    """The trained part after three steps."""

    @jax.jit
    def step(params, state):
        updates, state = tx.update(jax.grad(loss)(params), state, params, grad_fn=jax.grad(loss))
        return trained(updates), state

    updates, state = None, tx.init(params)
    for _ in range(3):
        updates, state = step(params, state)
    return updates


@pytest.mark.parametrize("name", ALL)
def test_a_variant_is_that_of_the_trained_leaves_alone(name):
    operator = asam_jax.masked(asam_jax.elementwise(), TRAINS)
    got = three_steps(optimizer(name, operator=operator), W, loss, lambda tree: tree["head"])
    expected = three_steps(optimizer(name), W["head"], of_head, lambda tree: tree)
    np.testing.assert_allclose(got, expected, rtol=1e-5)


@pytest.mark.parametrize("name", ALL)
def test_a_variant_is_that_of_the_trained_entries_alone(name):
    """Of a leaf whose other entries are frozen and have gradients that are NaN."""
    w, mask = jnp.array([1.0, 0.0, -2.0, 0.0]), np.array([True, False, True, False])
    alone = lambda w: jnp.sum(jnp.sin(X[:, :2] * w[None]) ** 2)  # noqa: E731
    whole = lambda w: alone(w[::2]) + jnp.sqrt(jnp.sum(w[1::2] ** 2))  # noqa: E731
    operator = asam_jax.masked(asam_jax.elementwise(), mask)
    got = three_steps(optimizer(name, operator=operator), w, whole, lambda w: w[::2])
    np.testing.assert_allclose(
        got, three_steps(optimizer(name), w[::2], alone, lambda w: w), rtol=1e-5
    )


@pytest.mark.parametrize("p", [1.0, 1.5, 2.0, jnp.inf])
@pytest.mark.parametrize("mask", [TRAINS, lambda _: TRAINS], ids=["tree", "function"])
def test_frozen_leaves_are_left_out_of_eps_and_of_its_norm(mask, p):
    grads = jax.grad(loss)(W)
    operator = asam_jax.masked(asam_jax.elementwise(), mask)
    eps = asam_jax.perturbation(W, grads, rho=0.5, operator=operator, p=p)
    for name in ("back", "rest"):
        np.testing.assert_array_equal(eps[name], jnp.zeros_like(W[name]))
    alone = asam_jax.perturbation(W["head"], grads["head"], rho=0.5, p=p)
    np.testing.assert_allclose(eps["head"], alone, rtol=1e-6)


def test_frozen_entries_are_in_no_norm_of_a_filter():
    kernel = jnp.ones((2, 2, 1, 3)).at[0, 0].set(jnp.nan)
    operator = asam_jax.masked(asam_jax.filterwise(0.0), jnp.isfinite(kernel))
    np.testing.assert_allclose(operator(kernel), jnp.nan_to_num(kernel * np.sqrt(3)), rtol=1e-6)


def test_other_ways_to_take_a_gradient():
    """value_and_grad, alternating and momentum_ascent leave a NaN at frozen leaves alone."""
    operator = asam_jax.masked(asam_jax.elementwise(), TRAINS)
    expected = asam_jax.value_and_grad(of_head, rho=0.5)(W["head"])[1]
    grads = asam_jax.value_and_grad(loss, rho=0.5, operator=operator)(W)[1]
    np.testing.assert_allclose(grads["head"], expected, rtol=1e-5)
    assert np.isnan(grads["rest"]).all()  # handed on as it is (google/flax 3435: float8 scales)

    base = optax.partition({True: optax.sgd(0.1), False: optax.set_to_zero()}, TRAINS)
    tx = asam_jax.alternating(base, 0.5, operator=operator)
    params: Any = W
    state = tx.init(W)
    for _ in range(2):
        updates, state = tx.update(jax.grad(loss)(params), state, params)
        params = optax.apply_updates(params, updates)
    np.testing.assert_allclose(params["head"], W["head"] - 0.1 * expected, rtol=1e-5)
    chex.assert_trees_all_equal({**params, "head": 0}, {**W, "head": 0})

    alone = asam_jax.perturbation(W["head"], jax.grad(of_head)(W["head"]), rho=0.5)
    for tx, field in (
        (optax.sgd(0.1, momentum=0.9), "trace"),
        (optax.masked(asam_jax.remember(), TRAINS), "direction"),
    ):
        _, state = tx.update(jax.grad(loss)(W), tx.init(W), W)
        momentum = optax.tree.get(state, field)
        at = asam_jax.momentum_ascent(W, momentum, rho=0.5, operator=operator)
        np.testing.assert_allclose(at["head"], W["head"] + alone, rtol=1e-5)
        np.testing.assert_array_equal(at["rest"], W["rest"])


def test_alternating_leaves_a_frozen_infinity_alone():
    """As of an attention mask that is kept among the parameters."""
    params: Any = {"w": jnp.array([3.0, 4.0]), "mask": jnp.array([0.0, -jnp.inf])}
    operator = asam_jax.masked(asam_jax.identity(), {"w": True, "mask": False})
    tx = asam_jax.alternating(optax.sgd(0.1), 0.5, operator=operator)
    state, mask = tx.init(params), params["mask"]
    for _ in range(2):
        grads = {"w": 2 * params["w"], "mask": jnp.zeros(2)}
        updates, state = tx.update(grads, state, params)
        params = optax.apply_updates(params, updates)
    np.testing.assert_array_equal(params["mask"], mask)
    np.testing.assert_allclose(params["w"], [2.34, 3.12], rtol=1e-6)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda tx: optax.masked(tx, TRAINS),
        lambda tx: optax.partition({True: tx, False: optax.set_to_zero()}, TRAINS),
    ],
    ids=["masked", "partition"],
)
def test_placeholders_are_named_with_the_way_out(wrap):
    for tx in (asam_jax.asam(optax.sgd(0.1)), asam_jax.alternating(optax.sgd(0.1), 0.5)):
        tx = wrap(tx)
        with pytest.raises(ValueError, match=r"MaskedNode.*asam_jax\.masked"):
            tx.update(W, tx.init(W), W, grad_fn=jax.grad(loss))


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

    for mask, scale in ((Last()(params), 2.5), (Last(), 2.5), (nothing, 0.0)):
        scales = asam_jax.masked(asam_jax.elementwise(0.5), mask)(params)
        last = np.broadcast_to(scales.layers[-1].weight, (1, 4))
        np.testing.assert_array_equal(last, np.full((1, 4), scale))
        assert not any(map(np.any, jax.tree.leaves((scales.layers[0], scales.layers[-1].bias))))


def test_a_mask_made_of_nnx_state_and_a_prefix():
    state = nnx.state(nnx.eval_shape(lambda: nnx.Linear(2, 3, rngs=nnx.Rngs(0))), nnx.Param)
    state = jax.tree.map(lambda s: np.full(s.shape, 2.0, np.float32), state)
    mask = jax.tree.map(lambda w: w.ndim == 2, state)
    scales = asam_jax.masked(asam_jax.elementwise(0.5), mask)(state)
    assert jax.tree.structure(scales) == jax.tree.structure(state)
    bias, kernel = jax.tree.leaves(scales)
    np.testing.assert_array_equal(kernel, np.full((2, 3), 2.5))
    assert not np.any(bias)

    params = {"a": (jnp.ones(2), jnp.ones(2)), "b": {"c": jnp.ones(2)}}
    scales = asam_jax.masked(asam_jax.identity(), {"a": (True, False), "b": True})(params)
    assert [float(jnp.max(s)) for s in jax.tree.leaves(scales)] == [1.0, 0.0, 1.0]


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ({"back": "freeze", "head": "train", "rest": "train"}, "mask must hold booleans"),
        ({"back": False}, "mask"),
        ({**TRAINS, "haed": True}, "mask"),
    ],
)
def test_masks_that_do_not_fit(mask, message):
    with pytest.raises((TypeError, ValueError), match=message):
        asam_jax.masked(asam_jax.elementwise(), mask)(W)
