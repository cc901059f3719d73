"""Situations that failed people elsewhere: their sources are named by repository and issue."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx
from flax.training import train_state

import asam_jax
import asam_jax.nnx

X = np.random.default_rng(0).normal(size=(16, 4)).astype(np.float32)
Y = np.float32(X @ [[1.0], [2.0], [-1.0], [0.5]])
W = {"kernel": jnp.full((4, 1), 0.3), "bias": jnp.zeros(1)}

sharpness_aware = functools.partial(asam_jax.sharpness_aware, 0.1)
VARIANTS = {
    "asam": asam_jax.asam(optax.sgd(0.1), 0.1),
    "friendly": sharpness_aware(ascent=asam_jax.friendly_ascent(), every=2),
    "ema": sharpness_aware(ascent=optax.ema(0.9), every=2),
    "looksam": sharpness_aware(every=2, descent=asam_jax.looksam_descent(0.5)),
    "gsam": sharpness_aware(every=2, descent=asam_jax.gsam_descent(0.3)),
    "stable": sharpness_aware(every=2, descent=asam_jax.stable_descent()),
    "wsam": sharpness_aware(every=2, descent=asam_jax.wsam_descent(0.3)),
    "schedule": asam_jax.sharpness_aware(optax.linear_schedule(0.1, 0.5, 5)),
    "inject": optax.inject_hyperparams(asam_jax.sharpness_aware)(rho=0.1),
    "decoupled": asam_jax.decoupled_wsam(optax.sgd(0.1), 0.1, 0.1),
    "alternating": asam_jax.alternating(optax.sgd(0.1), 0.1),
    "remember": optax.chain(asam_jax.remember(0.5), optax.sgd(0.1)),
}


def loss(w):
    return jnp.mean((X @ w["kernel"] + w["bias"][None] - Y) ** 2)


def steps(tx, w, grad_fn, number=2):
    """Some steps in a scan, whose carry must keep its types."""

    def step(carry, _):
        w, state = carry
        extra = (
            {} if tx in (VARIANTS["alternating"], VARIANTS["remember"]) else {"grad_fn": grad_fn}
        )
        updates, state = optax.with_extra_args_support(tx).update(grad_fn(w), state, w, **extra)
        stepped = jax.tree.map(lambda a, u: (a + u).astype(a.dtype), w, updates)
        return (stepped, state), None

    return jax.lax.scan(step, (w, tx.init(w)), length=number)[0][0]


@pytest.mark.usefixtures("flax_promotes")
@pytest.mark.parametrize("name", VARIANTS)
def test_states_keep_their_types_in_a_scan(name):
    """google-deepmind/optax 1038, patrick-kidger/optimistix 103, instadeepai/Mava 1184."""
    for of_params, of_grads in (("f4", "f4"), ("f4", jnp.bfloat16), (jnp.bfloat16, "f4")):
        grad_fn = lambda w, d=of_grads: jax.tree.map(  # noqa: E731
            lambda g: g.astype(d), jax.grad(loss)(w)
        )
        params = jax.tree.map(lambda w, d=of_params: w.astype(d), W)
        jax.eval_shape(functools.partial(steps, VARIANTS[name], grad_fn=grad_fn), params)


@pytest.mark.parametrize("name", ["asam", "friendly", "decoupled", "alternating", "looksam"])
def test_parameters_that_are_python_floats(name):
    """google-deepmind/optax 333, LouisDesdoigts/zodiax 35."""
    tx, w = VARIANTS[name], {"a": 3.0, "b": -2.0}
    grad_fn = jax.grad(lambda w: w["a"] ** 2 + 2 * w["b"] ** 2)
    extra = {} if name == "alternating" else {"grad_fn": grad_fn}
    updates, _ = tx.update(grad_fn(w), tx.init(w), w, **extra)
    arrays = jax.tree.map(jnp.float32, w)
    expected, _ = tx.update(grad_fn(arrays), tx.init(arrays), arrays, **extra)
    for got, right in zip(updates.values(), expected.values(), strict=True):
        np.testing.assert_allclose(got, right, rtol=1e-6)


@pytest.mark.parametrize("name", VARIANTS)
def test_no_false_alarm_where_nans_are_looked_for(name):
    """jax-ml/jax 475, google-deepmind/optax 1743: at a zero gradient, eagerly."""
    zeros = lambda w: jax.tree.map(jnp.zeros_like, w)  # noqa: E731
    extra = {} if name in ("alternating", "remember") else {"grad_fn": zeros}
    tx = optax.with_extra_args_support(VARIANTS[name])
    with jax.debug_nans(True), jax.numpy_dtype_promotion("standard"):
        updates, _ = tx.update(zeros(W), tx.init(W), W, **extra)
    assert not any(np.any(u) for u in updates.values())


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
