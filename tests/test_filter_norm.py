"""Derivatives of the filter-wise scale: right, and finite where a filter is zero."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import asam_jax


def kernel(dtype=np.float64):
    """Four filters: an ordinary one, one with zeros, one of zeros alone, a tiny one."""
    w = np.random.default_rng(0).normal(size=(3, 2, 4)).astype(dtype)
    w[:2, :, 1] = 0.0
    w[..., 2] = 0.0
    w[..., 3] *= 1e-18
    return w


def norms(w):
    return jnp.ravel(asam_jax.filterwise(0.25)({"conv": w})["conv"])


@pytest.mark.usefixtures("x64")
def test_derivatives_are_those_of_finite_differences():
    w = kernel()
    forward, reverse = jax.jit(lambda w: (jax.jacfwd(norms)(w), jax.jacrev(norms)(w)))(w)
    np.testing.assert_allclose(forward, reverse, atol=1e-15)
    expected = np.zeros((4, *w.shape))
    for index in np.ndindex(w.shape):
        if index[-1] == 2:
            continue  # the norm has a corner: 0 is chosen
        h = 1e-6 * np.abs(w[..., index[-1]]).max()
        step = np.zeros_like(w)
        step[index] = h
        there, back = (np.sqrt(np.sum((w + s) ** 2, axis=(0, 1))) for s in (step, -step))
        expected[:, *index] = (there - back) / (2 * h)
    np.testing.assert_allclose(reverse, expected, atol=1e-8)


@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16])
def test_second_derivatives_are_finite_too(dtype):
    w = jnp.asarray(kernel(np.float32), dtype)
    hessian = jax.jit(jax.hessian(lambda w: jnp.sum(norms(w)[:3])))(w)
    assert jnp.isfinite(hessian).all()
    assert not hessian[..., 2, :, :, :].any()


def test_values_at_the_ends_of_float32():
    w = np.ones((2, 2, 4), np.float32) * np.float32([1e-30, 0.0, 1e30, np.inf])
    values = norms(w) - 0.25
    np.testing.assert_allclose(values[2], 2e30, rtol=1e-6)
    assert values[1] == 0 and not np.isfinite(values[3])
