"""Derivatives through eps: finite, zero at a zero gradient, and right by finite differences."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import asam_jax

OPERATOR = asam_jax.filterwise()  # element-wise for the dense kernel, T = 1 for the bias


def weights():
    """A kernel, a bias that starts at 0, and a kernel with a filter of zeros."""
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(2, 2, 2, 3))
    kernel[..., 1] = 0.0
    return {"conv": {"kernel": kernel, "bias": np.zeros(3)}, "dense": {"kernel": np.ones((2, 2))}}


def direction(zeros):
    """Like `weights`, some entries exactly 0."""
    rng = np.random.default_rng(1)
    grads = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), weights())
    if zeros:
        grads["conv"]["kernel"][0, 0] = 0.0
        grads["dense"]["kernel"] *= 0.0
    return grads


@functools.partial(jax.jit, static_argnames="p")
def total(grads, p):
    """A number made from all of eps."""
    eps = asam_jax.perturbation(weights(), grads, rho=0.3, operator=OPERATOR, p=p)
    return sum(jnp.sum(jnp.sin(leaf + 1.0)) for leaf in jax.tree.leaves(eps))


def difference(function, grads, along, h=1e-6):
    up, down = (jax.tree.map(lambda g, v: g + s * h * v, grads, along) for s in (1, -1))  # noqa: B023
    return (function(up) - function(down)) / (2 * h)


@pytest.mark.parametrize("p", [1.5, 2.0, 4.0, float("inf")])
@pytest.mark.parametrize("zeros", [False, True])
def test_derivatives_agree_with_finite_differences(p, zeros, x64):
    """Along entries that are not 0; at p = 2 and below along all."""
    grads = direction(zeros)
    along = jax.tree.map(lambda g: np.cos(np.arange(g.size)).reshape(g.shape), grads)
    if p > 2:
        along = jax.tree.map(lambda v, g: v * (g != 0), along, grads)

    def function(grads):
        return total(grads, p)

    @jax.jit
    def derivatives(grads, along):
        return jax.jvp(function, (grads,), (along,))[1], jax.grad(function)(grads)

    expected = difference(function, grads, along)
    forward, reverse = derivatives(grads, along)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(reverse))
    products = jax.tree.map(np.vdot, reverse, along)
    np.testing.assert_allclose(forward, expected, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(sum(jax.tree.leaves(products)), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("p", [1.0, 2.0, 4.0, float("inf")])
def test_at_a_zero_gradient_they_are_zero(p):
    zeros = jax.tree.map(np.zeros_like, weights())

    @jax.jit
    def derivatives(grads):
        ones = jax.tree.map(jnp.ones_like, grads)
        function = lambda g: total(g, p)  # noqa: E731
        return jax.jvp(function, (grads,), (ones,))[1], jax.grad(function)(grads)

    for leaf in jax.tree.leaves(derivatives(jax.tree.map(np.float32, zeros))):
        np.testing.assert_array_equal(leaf, np.zeros(leaf.shape))


def test_with_respect_to_weights_and_radius(x64):
    """Weights of 0 among them, whose scale |w| has no derivative and is given 0."""
    grads, w = direction(zeros=True), weights()

    @jax.jit
    def function(w, rho):
        eps = asam_jax.perturbation(w, grads, rho=rho)
        return sum(jnp.sum(jnp.sin(leaf + 1.0)) for leaf in jax.tree.leaves(eps))

    along = jax.tree.map(lambda leaf: np.sin(1.0 + np.arange(leaf.size)).reshape(leaf.shape), w)
    along = jax.tree.map(lambda v, leaf: v * (leaf != 0), along, w)
    _, tangent = jax.jvp(function, (w, 0.3), (along, 0.0))
    expected = difference(lambda w: function(w, 0.3), w, along)
    np.testing.assert_allclose(tangent, expected, rtol=1e-5)
    slope = jax.grad(function, argnums=1)(w, 0.0)
    np.testing.assert_allclose(
        slope, difference(lambda r: function(w, r), 0.0 + 1e-6, 1.0, h=1e-7), rtol=1e-3
    )


def test_through_a_step_of_a_network_whose_last_layer_is_zero():
    """The plain formula's, by hand where the gradient has zero entries: see `plain`."""
    w = {"a": jnp.array([0.3, -0.2]), "b": jnp.zeros(2)}
    x, y = jnp.array([[1.0, 2.0], [0.5, -1.0]]), jnp.array([1.0, -1.0])

    def loss(w):
        return jnp.mean(((x * w["a"][None]) @ w["b"] - y) ** 2)

    def after(w, perturbed):
        grads = jax.grad(loss)(perturbed(w, jax.grad(loss)(w)))
        return loss(jax.tree.map(lambda w, g: w - 0.1 * g, w, grads))

    def plain(w, g):
        norm = jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(g)))
        return jax.tree.map(lambda w, g: w + 0.1 * g / norm, w, g)

    def ours(w, g):
        eps = asam_jax.perturbation(w, g, rho=0.1, operator=asam_jax.identity())
        return optax.apply_updates(w, eps)

    derivative = jax.jit(jax.grad(after), static_argnums=1)
    result, expected = derivative(w, ours), derivative(w, plain)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), result, expected)
    np.testing.assert_allclose(result["a"], [-0.0171, 0.3406], atol=1e-4)
    np.testing.assert_allclose(result["b"], [-0.1371, 0.4690], atol=1e-4)


def test_derivatives_of_filter_norms():
    """w / ||w||, and 0 for a filter of zeros, where the norm has a corner."""
    filters = np.random.default_rng(0).normal(size=(3, 2, 4))
    expected = filters / np.linalg.norm(filters, axis=(0, 1))
    expected[..., 3] = 0.0
    w = jnp.asarray(filters * np.array([1.0, 1e-30, 1e30, 0.0]), jnp.float32)
    norms = jax.jit(lambda w: jnp.ravel(asam_jax.filterwise(0.25)({"conv": w})["conv"]))
    for jacobian in (jax.jacfwd(norms)(w), jax.jacrev(norms)(w)):
        np.testing.assert_allclose(jacobian.sum(axis=0), expected, rtol=1e-5)
