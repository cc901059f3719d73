"""value_and_grad: what each pass sees, and what comes from which."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import asam_jax

W = jnp.array([3.0, -4.0, 1.0])
X = jnp.asarray(np.random.default_rng(0).normal(size=(5, 3)), jnp.float32)


def loss(w, x, *, shift=0.0):
    return jnp.mean(jnp.square(x @ w - shift))


def test_the_value_is_the_first_passes_and_the_gradient_the_seconds():
    """For 0.5 <w, D w> the gradient at w + eps is D (w + rho D w / ||D w||)."""
    d = jnp.array([1.0, 2.0, 0.5])
    step = asam_jax.value_and_grad(
        lambda w: 0.5 * jnp.sum(d * w**2), rho=0.3, operator=asam_jax.identity()
    )
    value, grad = step(W)
    assert float(value) == pytest.approx(0.5 * (9 + 2 * 16 + 0.5))
    dw = np.asarray(d * W)
    np.testing.assert_allclose(grad, d * (W + 0.3 * dw / np.linalg.norm(dw)), rtol=1e-6)


def test_keywords_reach_both_passes_and_may_have_any_name():
    """params is taken by position alone, as jax.value_and_grad takes it."""

    def of_adapter(adapter, *, params, fun, rho):
        return loss(adapter + params, X, shift=fun + rho)

    operator = asam_jax.elementwise(0.01)
    step = asam_jax.value_and_grad(of_adapter, rho=0.3, operator=operator)
    handed = step(0 * W, params=W, fun=1.0, rho=1.0)
    gradient = 2 * X.T @ (X @ W - 2.0) / len(X)
    scales = np.full(3, 0.01)  # T_w = |w| + eta at w = 0
    at = W + 0.3 * scales**2 * gradient / np.linalg.norm(scales * gradient)
    np.testing.assert_allclose(handed[0], loss(W, X, shift=2.0), rtol=1e-6)
    np.testing.assert_allclose(handed[1], 2 * X.T @ (X @ at - 2.0) / len(X), rtol=1e-5)


def test_aux_is_the_first_passes():
    def with_aux(w, x):
        return loss(w, x), {"mean": jnp.mean(x @ w), "count": jnp.int32(3)}

    (value, aux), grad = asam_jax.value_and_grad(with_aux, rho=0.3, has_aux=True)(W, X)
    assert float(aux["mean"]) == pytest.approx(float(jnp.mean(X @ W)), rel=1e-6)
    assert aux["count"].dtype == jnp.int32
    chex.assert_trees_all_close((value, grad), asam_jax.value_and_grad(loss, rho=0.3)(W, X))


def test_both_passes_see_the_same_dropout():
    """With another mask in the second pass, dropped coordinates would get a gradient."""

    def dropped(w, key):
        return jnp.sum(jnp.where(jax.random.bernoulli(key, 0.5, w.shape), w**2, 0.0))

    key = jax.random.key(3)
    kept = jax.random.bernoulli(key, 0.5, (64,))
    _, grad = asam_jax.value_and_grad(dropped, rho=0.1)(jnp.ones(64), key)
    np.testing.assert_array_equal(grad != 0, kept)


def test_rho_zero_is_value_and_grad_in_one_pass():
    step = jax.jit(asam_jax.value_and_grad(loss, rho=0.0))
    plain = jax.jit(jax.value_and_grad(loss))
    chex.assert_trees_all_equal(step(W, X), plain(W, X))
    costs = [f.lower(W, X).compile().cost_analysis() or {} for f in (step, plain)]
    assert costs[0]["flops"] == costs[1]["flops"]


def test_rho_may_be_traced_and_does_not_retrace():
    traces = []

    @jax.jit
    def step(w, rho):
        traces.append(1)
        return asam_jax.value_and_grad(loss, rho=rho)(w, X)

    for rho in (0.0, 0.1, 0.5):
        expected = asam_jax.value_and_grad(loss, rho=rho)(W, X)
        chex.assert_trees_all_close(step(W, rho), expected, rtol=1e-5)
    assert len(traces) == 1


def test_it_goes_through_vmap_and_grad():
    """Each member of an ensemble has its own eps."""
    ws = jnp.stack([W, 2 * W])
    step = asam_jax.value_and_grad(loss, rho=0.2)
    values, grads = jax.vmap(step, in_axes=(0, None))(ws, X)
    for i in range(2):
        chex.assert_trees_all_close((values[i], grads[i]), step(ws[i], X), rtol=1e-5)
    second = jax.grad(lambda w: step(w, X)[0])(W)
    chex.assert_trees_all_close(second, jax.grad(loss)(W, X), rtol=1e-5)
