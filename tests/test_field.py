"""Situations that failed people elsewhere: their sources are named by repository and issue."""

from typing import Any

import chex
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracle
import pytest
from flax import linen, nnx
from flax.training import train_state
from variants import optimizer

import asam_jax
import asam_jax.nnx

pytestmark = pytest.mark.usefixtures("flax_promotes")
X = np.random.default_rng(0).normal(size=(16, 4)).astype(np.float32)
Y = np.float32(X @ [[1.0], [2.0], [-1.0], [0.5]])
W = {"kernel": jnp.full((4, 1), 0.3), "bias": jnp.zeros(1)}


def loss(w):
    return jnp.mean((X @ w["kernel"] + w["bias"][None] - Y) ** 2)


@pytest.mark.parametrize("name", ["exact", "LookSAM", "decoupled WSAM", "alternating"])
def test_parameters_that_are_python_floats(name):
    """google-deepmind/optax 333, LouisDesdoigts/zodiax 35."""
    grad_fn = jax.grad(lambda w: w["a"] ** 2 + 2 * w["b"] ** 2)
    if name == "alternating":
        tx, extra = asam_jax.alternating(optax.sgd(0.1), 0.1), {}
    else:
        tx, extra = optimizer(name), {"grad_fn": grad_fn}
    w = {"a": 3.0, "b": -2.0}
    arrays = jax.tree.map(jnp.float32, w)
    updates, _ = tx.update(grad_fn(w), tx.init(w), w, **extra)
    expected, _ = tx.update(grad_fn(arrays), tx.init(arrays), arrays, **extra)
    chex.assert_trees_all_close(updates, expected, rtol=1e-6)


def test_a_trainer_that_takes_no_further_arguments():
    """google-deepmind/penzai 126, google/flax 4471: Linen's TrainState, called twice a step."""
    tx = asam_jax.alternating(optax.sgd(0.1), 0.5)
    state = train_state.TrainState.create(apply_fn=None, params=W, tx=tx)
    for _ in range(2):
        state = state.apply_gradients(grads=jax.grad(loss)(state.params))
    expected = asam_jax.value_and_grad(loss, rho=0.5)(W)[1]
    for name, leaf in state.params.items():
        np.testing.assert_allclose(leaf, W[name] - 0.1 * expected[name], rtol=1e-5)


def test_a_population_of_radii():
    """google-deepmind/optax 932: hyper-parameters under vmap."""
    tx = optax.chain(optax.inject_hyperparams(asam_jax.sharpness_aware)(rho=1.0), optax.sgd(0.1))

    def trained(rho):
        state: Any = tx.init(W)
        state[0].hyperparams["rho"] = rho
        updates: Any = tx.update(jax.grad(loss)(W), state, W, grad_fn=jax.grad(loss))[0]
        return updates["kernel"]

    radii = jnp.array([0.0, 0.1, 0.5])
    expected = [-0.1 * asam_jax.value_and_grad(loss, rho=r)(W)[1]["kernel"] for r in radii]
    np.testing.assert_allclose(jax.vmap(trained)(radii), jnp.stack(expected), rtol=1e-5)


def test_tied_parameters_of_a_module_count_once():
    """google/flax 3516, torch/optim 73."""

    class Tied(nnx.Module):
        def __init__(self):
            self.one = self.two = nnx.Param(jnp.array([[1.0, -2.0], [3.0, 4.0]]))

        def __call__(self, x):
            return x @ self.one[...] @ self.two[...]

    model, x = Tied(), X[:, :2]
    grads = asam_jax.nnx.value_and_grad(lambda m: jnp.mean(m(x) ** 2), rho=0.5)(model)[1]
    of = lambda w: jnp.mean((x @ w @ w) ** 2)  # noqa: E731
    expected = asam_jax.value_and_grad(of, rho=0.5)(model.one[...])[1]
    (got,) = jax.tree.leaves(grads)
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_labels_and_masks_of_a_module():
    """google/flax 5372: nnx.Optimizer hands trees without Variables, and so does asam_jax.nnx."""
    model: Any = nnx.Linear(4, 1, rngs=nnx.Rngs(0))
    of = lambda model: jnp.mean((model(X) - Y) ** 2)  # noqa: E731
    mask = jax.tree.map(lambda w: w.ndim == 2, nnx.as_pure(nnx.state(model, nnx.Param)))
    operator = asam_jax.masked(asam_jax.elementwise(), mask)
    base = optax.partition({True: optax.sgd(0.1), False: optax.set_to_zero()}, mask)
    optimizer = nnx.Optimizer(model, base, wrt=nnx.Param)
    grads = asam_jax.nnx.value_and_grad(of, rho=0.5, operator=operator)(model)[1]
    kernel, bias = model.kernel[...], model.bias[...]
    alone = lambda w: jnp.mean((X @ w["kernel"] + bias - Y) ** 2)  # noqa: E731
    expected = asam_jax.value_and_grad(alone, rho=0.5)({"kernel": kernel})[1]["kernel"]
    optimizer.update(model, grads)
    np.testing.assert_allclose(model.kernel[...], kernel - 0.1 * expected, rtol=1e-5)
    np.testing.assert_array_equal(model.bias[...], bias)
    mask = jax.tree.map(lambda w: w.ndim == 2, nnx.state(model, nnx.Param))
    boxed = asam_jax.masked(asam_jax.elementwise(), mask)
    with pytest.raises(ValueError, match="mask must have the structure"):
        asam_jax.nnx.value_and_grad(of, rho=0.5, operator=boxed)(model)


def test_boxes_around_arrays_have_no_names():
    """marin-community/haliax' and penzai's named arrays, Linen's Partitioned."""
    keys = jax.tree_util
    boxes = (keys.GetAttrKey("array"), keys.GetAttrKey("data_array"), keys.FlattenedIndexKey(0))
    for box in boxes:
        assert not asam_jax.not_bias((keys.DictKey("bias"), box), X[0])
        assert asam_jax.not_bias((keys.DictKey("scale"), box), X[0])
    init = linen.with_partitioning(linen.initializers.ones, ("x",))
    params = linen.Dense(3, bias_init=init).init(jax.random.key(0), X)["params"]
    scales = asam_jax.elementwise(0.5, adapt=asam_jax.not_bias)(params)
    np.testing.assert_array_equal(scales["bias"].value, [1.0])


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
    "keras": keras_variables,
}


@pytest.mark.parametrize("name", UNNAMED)
def test_biases_without_names_are_biases(name, monkeypatch):
    """g11: `not_bias` scaled them."""
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    params, loss = UNNAMED[name]()
    grads = jax.grad(loss)(params)
    names = ("kernel1", "bias", "kernel2", "b/bias")
    expected = oracle.perturbation(
        dict(zip(names, jax.tree.leaves(params), strict=True)),
        dict(zip(names, jax.tree.leaves(grads), strict=True)),
        rho=0.5,
        leaves="not_bias",
    )
    operator = asam_jax.elementwise(adapt=asam_jax.not_bias)
    eps = asam_jax.perturbation(params, grads, rho=0.5, operator=operator)
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


def test_both_passes_get_the_state_of_equinox():
    """g10: setting invalidates a state, and both passes got the same one."""
    model, state = eqx.nn.make_with_state(Stateful)(jax.random.key(0))
    params, static = eqx.partition(model, eqx.is_inexact_array)

    def loss(params, state):
        out, state = eqx.combine(params, static)(X, state)
        return jnp.mean((out - Y) ** 2), state

    step = asam_jax.value_and_grad(loss, rho=0.5, has_aux=True)
    (value, state), grads = eqx.filter_jit(step)(params, state)
    mean = 0.1 * X.mean(0)
    np.testing.assert_allclose(state.get(model.mean), mean, rtol=1e-5)
    of = lambda p: jnp.mean((jax.vmap(p.linear)(X - mean[None]) - Y) ** 2)  # noqa: E731
    expected = asam_jax.value_and_grad(of, rho=0.5)(params)
    np.testing.assert_allclose(value, expected[0], rtol=1e-5)
    np.testing.assert_allclose(grads.linear.weight, expected[1].linear.weight, rtol=1e-5)


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
