"""25 training steps against the authors' implementation rewritten in NumPy (tests/authors.py)."""

import authors
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import asam_jax

STEPS, RHO, LR = 25, 0.5, 0.05
TOLERANCE = {np.float32: 1e-5, np.float64: 1e-12}


def loss(w, x, labels):
    z = x @ w["dense.weight"].T
    normal = (z - jnp.mean(z, 0, keepdims=True)) / jnp.sqrt(
        jnp.var(z, 0, keepdims=True) + authors.NORM_EPS
    )
    h = jnp.tanh(w["norm.weight"][None] * normal + w["norm.bias"][None])
    logits = h @ w["head.weight"].T + w["head.bias"][None]
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))


def base():
    return optax.chain(
        optax.add_decayed_weights(authors.WEIGHT_DECAY), optax.sgd(LR, authors.MOMENTUM)
    )


def by_value_and_grad(operator):
    tx, gradient = base(), asam_jax.value_and_grad(loss, rho=RHO, operator=operator)

    def step(w, state, *batch):
        updates, state = tx.update(gradient(w, *batch)[1], state, w)
        return optax.apply_updates(w, updates), state

    return tx.init, step


def by_sharpness_aware(operator):
    tx = optax.chain(asam_jax.sharpness_aware(RHO, operator=operator), base())

    def step(w, state, *batch):
        def grad_fn(w):
            return jax.grad(loss)(w, *batch)

        updates, state = tx.update(grad_fn(w), state, w, grad_fn=grad_fn)
        return optax.apply_updates(w, updates), state

    return tx.init, step


def by_alternating(operator):
    tx = asam_jax.alternating(base(), RHO, operator=operator)

    def step(w, state, *batch):
        for _ in range(2):
            updates, state = tx.update(jax.grad(loss)(w, *batch), state, w)
            w = optax.apply_updates(w, updates)
        return w, state

    return tx.init, step


def trajectory(variant, dtype, operator):
    w = {name: jnp.asarray(value, dtype) for name, value in authors.init().items()}
    init, step = variant(operator)
    step, state, path = jax.jit(step), init(w), []
    for x, labels in authors.batches(STEPS):
        w, state = step(w, state, jnp.asarray(x, dtype), jnp.asarray(labels))
        path.append(w)
    return path


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("variant", [by_value_and_grad, by_sharpness_aware, by_alternating])
def test_the_trajectory_is_the_authors(variant, dtype):
    expected = authors.trajectory(authors.init(), STEPS, rho=RHO, lr=LR)
    with jax.enable_x64(dtype == np.float64):
        made = trajectory(
            variant, dtype, asam_jax.elementwise(authors.ETA, adapt=asam_jax.not_bias)
        )
    tolerance = TOLERANCE[dtype]
    for ours, theirs in zip(made, expected, strict=True):
        for name in theirs:
            np.testing.assert_allclose(ours[name], theirs[name], rtol=tolerance, atol=tolerance)


def test_the_handwritten_gradient_is_the_losss(x64):
    w = authors.init()
    x, labels = next(authors.batches(1))
    expected = jax.grad(loss)(jax.tree.map(jnp.asarray, w), jnp.asarray(x), jnp.asarray(labels))
    for name, value in authors.gradient(w, x, labels).items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-10, atol=1e-14)
