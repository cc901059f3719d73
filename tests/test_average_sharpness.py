"""Average-case sharpness against the trace formula of a quadratic loss, and its arguments."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import asam_jax
from asam_jax import _average_sharpness

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
W = jnp.asarray(RNG.normal(size=5), jnp.float32)
X = RNG.normal(size=(12, 5)).astype(np.float32)
ROOT = RNG.normal(size=(5, 5))
HESSIAN = ROOT @ ROOT.T / 5


def quadratic(w, x):
    del x
    return 0.5 * w @ jnp.asarray(HESSIAN, w.dtype) @ w


def wavy(w, x):
    return jnp.mean(jnp.sin(2 * (x @ w)))


@pytest.mark.parametrize(
    ("operator", "t"),
    [
        (asam_jax.identity(), np.ones(5)),
        (asam_jax.elementwise(0.5), np.abs(W) + 0.5),
    ],
)
def test_a_quadratics_average_is_half_the_trace(operator, t):
    """sigma^2 / 2 tr(T H T), within five standard errors of the pairs that were drawn."""
    samples, sigma = 600, 0.1
    thth = t[:, None] * HESSIAN * t
    expected = 0.5 * sigma**2 * np.trace(thth)
    error = sigma**2 * np.sqrt(np.sum(thth**2) / 2) / np.sqrt(samples / 2)
    value = asam_jax.average_sharpness(
        quadratic, W, X, sigma=sigma, key=KEY, samples=samples, operator=operator
    )
    assert float(value) == pytest.approx(expected, abs=5 * error)
    assert 5 * error < 0.5 * expected


def test_a_linear_loss_has_none():
    value = asam_jax.average_sharpness(
        lambda w, x: jnp.mean(x @ w), W, X, sigma=0.5, key=KEY, samples=4
    )
    assert abs(float(value)) < 1e-6


def test_zero_sigma_and_zero_scales_do_not_move():
    assert asam_jax.average_sharpness(wavy, W, X, sigma=0.0, key=KEY) == 0
    operator = asam_jax.elementwise(0.0)
    assert asam_jax.average_sharpness(wavy, 0 * W, X, sigma=1.0, key=KEY, operator=operator) == 0


@pytest.mark.parametrize("size", [1, 4, 6])
def test_pieces_change_nothing(size):
    whole = asam_jax.average_sharpness(wavy, W, X, sigma=0.3, key=KEY, samples=3)
    cut = asam_jax.average_sharpness(wavy, W, X, sigma=0.3, key=KEY, samples=3, batch_size=size)
    np.testing.assert_allclose(cut, whole, rtol=1e-4)


@pytest.mark.parametrize("rolled", [False, True])
def test_traced_equals_eager(rolled, monkeypatch):
    def measure(w, x, sigma, key):
        return asam_jax.average_sharpness(wavy, w, x, sigma=sigma, key=key, samples=3, batch_size=4)

    expected = measure(W, X, 0.3, KEY)
    monkeypatch.setattr(_average_sharpness, "rolled", lambda *_: rolled)  # as on an accelerator
    np.testing.assert_allclose(jax.jit(measure)(W, X, jnp.float32(0.3), KEY), expected, rtol=1e-4)


def test_bad_input():
    with pytest.raises(ValueError, match="sigma must be at least 0"):
        asam_jax.average_sharpness(wavy, W, X, sigma=-1.0, key=KEY)
    with pytest.raises(ValueError, match="samples must be a positive integer"):
        asam_jax.average_sharpness(wavy, W, X, sigma=0.1, key=KEY, samples=0)
    with pytest.raises(ValueError, match="batch_size must be a positive integer that divides"):
        asam_jax.average_sharpness(wavy, W, X, sigma=0.1, key=KEY, batch_size=5)
    with pytest.raises(TypeError, match="loss_fn must be callable"):
        asam_jax.average_sharpness(None, W, X, sigma=0.1, key=KEY)
    with pytest.raises(TypeError, match="operator must be callable"):
        asam_jax.average_sharpness(wavy, W, X, sigma=0.1, key=KEY, operator=0.5)
