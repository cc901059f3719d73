"""Situations that failed people elsewhere: their sources are named by repository and issue."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx
from flax.training import train_state
from variants import optimizer

import asam_jax
import asam_jax.nnx

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


def test_what_is_overwritten_with_its_gradient_is_masked():
    """google/flax 3435: float8 scales, whose "gradient" is their next value."""

    @jax.custom_vjp
    def quantized(x, scale):
        return x

    quantized.defvjp(lambda x, s: (x, s), lambda s, ct: (ct, jnp.full_like(s, 7.0)))
    w = {"params": W, "fp8": jnp.ones(1)}
    of = lambda w: loss({**w["params"], "kernel": quantized(w["params"]["kernel"], w["fp8"])})  # noqa: E731
    operator = asam_jax.masked(asam_jax.elementwise(), {"params": True, "fp8": False})
    grads = asam_jax.value_and_grad(of, rho=0.5, operator=operator)(w)[1]
    expected = asam_jax.value_and_grad(loss, rho=0.5)(W)[1]
    np.testing.assert_allclose(grads["params"]["kernel"], expected["kernel"], rtol=1e-6)
    assert float(grads["fp8"][0]) == 7.0


@pytest.mark.usefixtures("flax_promotes")
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


@pytest.mark.usefixtures("flax_promotes")
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
    with pytest.raises(ValueError, match=r"make the mask from nnx\.as_pure\(nnx\.state\("):
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
    np.testing.assert_array_equal(asam_jax.elementwise()(params)["bias"].value, [1.0])
