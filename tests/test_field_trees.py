"""Parameter trees and optimizers as people have them: no names, states, boxes, every optimizer."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracle
import pytest

import asam_jax

X = np.random.default_rng(0).normal(size=(32, 4)).astype(np.float32)
Y = np.float32(X @ [[1.0], [-2.0], [3.0], [0.5]])
W1, W2 = (np.random.default_rng(1).normal(size=s).astype(np.float32) for s in ((4, 8), (8, 1)))
PAIRS = [(W1, np.zeros(8, np.float32)), (W2, np.zeros(1, np.float32))]


def network(pairs):
    (w1, b1), (w2, b2) = pairs
    return jnp.mean((jnp.tanh(X @ w1 + b1[None]) @ w2 + b2[None] - Y) ** 2)


def keras_variables():
    keras = pytest.importorskip("keras")
    model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(8, "tanh")])
    model.add(keras.layers.Dense(1))
    rest = model.non_trainable_variables
    loss = lambda w: jnp.mean((model.stateless_call(w, rest, X)[0] - Y) ** 2)  # noqa: E731
    return [jnp.asarray(leaf) for pair in PAIRS for leaf in pair], loss


UNNAMED = {
    "pairs": lambda: (PAIRS, network),
    "list": lambda: (
        [leaf for pair in PAIRS for leaf in pair],
        lambda w: network([(w[0], w[1]), (w[2], w[3])]),
    ),
    "blocks named b": lambda: (
        {"b1": PAIRS[0], "b2": PAIRS[1]},
        lambda w: network([w["b1"], w["b2"]]),
    ),
    "keras": keras_variables,
}


@pytest.mark.usefixtures("flax_promotes")
@pytest.mark.parametrize("name", UNNAMED)
def test_biases_without_names_are_biases(name, monkeypatch):
    """g11: they were scaled by |b| + 0.01; in {"b1": (W, b)} the matrix was taken for a bias."""
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    params, loss = UNNAMED[name]()
    grads = jax.grad(loss)(params)
    names = ("kernel1", "bias", "kernel2", "b/bias")
    expected = oracle.perturbation(
        dict(zip(names, jax.tree.leaves(params), strict=True)),
        dict(zip(names, jax.tree.leaves(grads), strict=True)),
        rho=0.5,
    )
    eps = asam_jax.perturbation(params, grads, rho=0.5)
    for leaf, right in zip(jax.tree.leaves(eps), expected.values(), strict=True):
        np.testing.assert_allclose(leaf, right, rtol=2e-5, atol=1e-7)


class Stateful(eqx.Module):
    linear: eqx.nn.Linear
    mean: eqx.nn.StateIndex

    def __init__(self, key):
        self.linear = eqx.nn.Linear(4, 1, key=key)
        self.mean = eqx.nn.StateIndex(jnp.zeros(4))

    def __call__(self, x, state):
        mean = 0.9 * state.get(self.mean) + 0.1 * x.mean(0)
        return jax.vmap(self.linear)(x - mean[None]), state.set(self.mean, mean)


@pytest.mark.parametrize("jit", [False, True])
def test_both_passes_get_the_state_of_equinox(jit):
    """g10: setting invalidates a state, and both passes got the same one."""
    model, state = eqx.nn.make_with_state(Stateful)(jax.random.key(0))
    params, static = eqx.partition(model, eqx.is_inexact_array)

    def loss(params, state):
        out, state = eqx.combine(params, static)(X, state)
        return jnp.mean((out - Y) ** 2), state

    step = asam_jax.value_and_grad(loss, rho=0.5, has_aux=True)
    (value, state), grads = (eqx.filter_jit(step) if jit else step)(params, state)
    mean = 0.1 * X.mean(0)
    np.testing.assert_allclose(state.get(model.mean), mean, rtol=1e-5)
    of = lambda p: jnp.mean((jax.vmap(p.linear)(X - mean[None]) - Y) ** 2)  # noqa: E731
    expected = asam_jax.value_and_grad(of, rho=0.5)(params)
    np.testing.assert_allclose(value, expected[0], rtol=1e-5)
    np.testing.assert_allclose(grads.linear.weight, expected[1].linear.weight, rtol=1e-5)


@pytest.mark.usefixtures("flax_promotes")
@pytest.mark.parametrize(
    "make", [asam_jax.alternating, lambda base, rho: optax.chain(asam_jax.remember(), base)]
)
def test_optimistix_drives_it(make):
    """g12: what an optimizer closes over must have a hash."""
    optimistix = pytest.importorskip("optimistix")
    solver = optimistix.OptaxMinimiser(make(optax.adam(0.1), 0.01), rtol=1e-6, atol=1e-6)
    found = optimistix.minimise(
        lambda w, target: jnp.sum((w - target) ** 2),
        solver,
        jnp.zeros(2),
        args=jnp.array([1.0, 2.0]),
        max_steps=500,
        throw=False,
    )
    np.testing.assert_allclose(found.value, [1.0, 2.0], atol=0.1)


def test_several_arguments_are_one_tuple():
    """g14: in place of argnums."""
    encoder, decoder = jnp.ones((4, 2)) / 2, jnp.full((2, 4), 0.3)
    loss = lambda x, encoder, decoder: jnp.mean((x @ encoder @ decoder - x) ** 2)  # noqa: E731
    step = asam_jax.value_and_grad(lambda pair, x: loss(x, *pair), rho=0.5)
    value, grads = step((encoder, decoder), X)
    plain = jax.grad(loss, argnums=(1, 2))(X, encoder, decoder)
    names = ("a", "b/kernel")
    eps = oracle.perturbation(
        dict(zip(names, (encoder, decoder), strict=True)),
        dict(zip(names, plain, strict=True)),
        rho=0.5,
    )
    at = [np.float32(w + e) for w, e in zip((encoder, decoder), eps.values(), strict=True)]
    expected = jax.grad(loss, argnums=(1, 2))(X, *at)
    np.testing.assert_allclose(value, loss(X, encoder, decoder), rtol=1e-6)
    for got, right in zip(grads, expected, strict=True):
        np.testing.assert_allclose(got, right, rtol=1e-4, atol=1e-6)


def test_layer_norm_of_images_is_no_convolution():
    """g16: its weight has three axes; it got one scale for each channel, 6.01."""
    key = jax.random.key(0)
    layers = [eqx.nn.Conv2d(3, 4, 3, key=key), eqx.nn.LayerNorm((4, 6, 6), use_bias=False)]
    params = eqx.filter(eqx.nn.Sequential(layers), eqx.is_inexact_array)
    scales = asam_jax.filterwise(filter_axes=asam_jax.torch_filter_axes)(params)
    assert scales.layers[0].weight.shape == (4, 1, 1, 1)
    np.testing.assert_allclose(scales.layers[1].weight, np.full((4, 6, 6), 1.01), rtol=1e-6)


def test_a_parameter_named_rho_keeps_its_momentum():
    """g13: optax.tree.set(state, rho=) overwrote it; `hyperparams` holds the radius alone."""
    w = {"mu": jnp.ones(3), "rho": jnp.full(3, -3.0)}
    loss = lambda w: jnp.sum((w["mu"] + jnp.exp(w["rho"])) ** 2)  # noqa: E731
    grad_fn = jax.grad(loss)
    link = optax.inject_hyperparams(asam_jax.sharpness_aware)(rho=1.0)
    tx = optax.chain(link, optax.sgd(0.1, momentum=0.9))
    state: Any = tx.update(grad_fn(w), tx.init(w), w, grad_fn=grad_fn)[1]
    momentum = state[1][0].trace["rho"]
    state[0].hyperparams["rho"] = jnp.float32(0.3)
    updates: Any = tx.update(grad_fn(w), state, w, grad_fn=grad_fn)[0]
    new = asam_jax.value_and_grad(loss, rho=0.3)(w)[1]
    np.testing.assert_allclose(updates["rho"], -0.1 * (new["rho"] + 0.9 * momentum), rtol=1e-5)


@pytest.mark.parametrize(
    "operator", [asam_jax.filterwise(), asam_jax.masked(asam_jax.identity(), lambda params: params)]
)
def test_an_operator_that_is_taken_for_a_schedule(operator):
    """f22: inject_hyperparams calls it with the count, which was "not inexact"."""
    make = optax.inject_hyperparams(asam_jax.sharpness_aware)
    with pytest.raises(TypeError, match=r'operator .*static_args=\("operator",\)'):
        make(rho=0.5, operator=operator).init(W1)
    make = optax.inject_hyperparams(asam_jax.sharpness_aware, static_args=("operator",))
    assert "rho" in make(rho=0.5, operator=operator).init(W1).hyperparams
