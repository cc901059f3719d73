"""Sharpness, its maximizer and average sharpness against closed forms and a dense search."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import asam_jax

PLAIN, SHIFTED = asam_jax.elementwise(0.0), asam_jax.elementwise(0.5)
KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
W = jnp.asarray(RNG.normal(size=6), jnp.float32)
X = RNG.normal(size=(12, 6)).astype(np.float32)
ROOT = RNG.normal(size=(6, 6))
HESSIAN = ROOT @ ROOT.T / 6


def linear(w, x):
    return jnp.mean(x @ w)


def quadratic(w, x):
    del x
    return 0.5 * w @ jnp.asarray(HESSIAN, w.dtype) @ w


def wavy(w, x):
    """Neither convex nor concave."""
    return jnp.mean(jnp.sin(2 * (x @ w)) + jnp.cos(x @ w[::-1]))


def scales(operator, w):
    return np.asarray(operator(w), np.float64) * np.ones(np.shape(w))


@pytest.mark.parametrize("p", [1, 1.2, 2, 7, math.inf])
@pytest.mark.parametrize("steps", [1, 3])
def test_a_linear_losss_sharpness_is_the_dual_norm(steps, p):
    """rho ||T g||_q, with one step and with many."""
    q = {1: math.inf, math.inf: 1}.get(p) or p / (p - 1)
    expected = 0.3 * np.linalg.norm(scales(SHIFTED, W) * X.mean(0), q)
    measure = asam_jax.sharpness(linear, rho=0.3, operator=SHIFTED, p=p, steps=steps)
    assert float(measure(W, X)) == pytest.approx(expected, rel=1e-5)


def ball_maximum(h, g, rho):
    """Of <g, u> + <u, H u> / 2 over ||u||_2 = rho: (lambda - H) u = g with lambda > H, bisected."""
    values, vectors = np.linalg.eigh(h)
    c = vectors.T @ g
    low, high = values[-1], values[-1] + np.linalg.norm(g) / rho + 1
    for _ in range(200):
        middle = (low + high) / 2
        too_long = np.linalg.norm(c / (middle - values)) > rho
        low, high = (middle, high) if too_long else (low, middle)
    u = vectors @ (c / (high - values))
    return g @ u + 0.5 * u @ h @ u


def test_many_steps_find_a_convex_quadratics_maximum(x64):
    w = np.asarray(W, np.float64)
    t = scales(SHIFTED, w)
    h, g, rho = t[:, None] * HESSIAN * t, t * (HESSIAN @ w), 1.5
    measure = asam_jax.sharpness(quadratic, rho=rho, operator=SHIFTED, steps=60)
    assert float(measure(w, X)) == pytest.approx(ball_maximum(h, g, rho), rel=1e-6)


@pytest.mark.parametrize("p", [2, math.inf])
def test_many_steps_find_the_maximum_of_a_dense_search(p):
    """Of a loss with several maxima in the region; one start of six ends in a lower one."""
    axis, found = np.linspace(-0.5, 0.5, 301, dtype=np.float32), []
    region = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    region = region[np.linalg.norm(region, p, axis=1) <= 0.5]
    measure = asam_jax.sharpness(wavy, rho=0.5, operator=SHIFTED, p=p, steps=20)
    search = jax.jit(jax.vmap(wavy, in_axes=(0, None)))
    for seed in range(6):
        w = np.random.default_rng(seed).normal(size=2).astype(np.float32)
        highest = search(w + scales(SHIFTED, w).astype(np.float32) * region, X[:, :2]).max()
        found.append(float(measure(w, X[:, :2]) / (highest - wavy(w, X[:, :2]))))
    assert max(found) < 1.01 and sorted(found)[1] > 0.9, found


@pytest.mark.parametrize("steps", [1, 3])
def test_groups_are_averaged(steps):
    measure = asam_jax.maximizer(wavy, rho=0.5, steps=steps)
    groups = [measure(W, X[i : i + 6]) for i in (0, 6)]
    for (eps, rise), i in zip(groups, (0, 6), strict=True):
        by_hand = wavy(W + eps, X[i : i + 6]) - wavy(W, X[i : i + 6])
        np.testing.assert_allclose(rise, by_hand, atol=1e-6)
    expected = np.mean([rise for _, rise in groups])
    whole = asam_jax.sharpness(wavy, rho=0.5, m=6, steps=steps)
    for value in (whole(W, X), whole(W, jnp.asarray(X)), jax.jit(whole)(W, X)):
        np.testing.assert_allclose(value, expected, rtol=1e-4)


def test_more_steps_never_find_less():
    measures = [asam_jax.sharpness(wavy, rho=1.0, steps=steps) for steps in (1, 2, 5)]
    for seed in range(10):
        w = np.random.default_rng(seed).normal(size=6).astype(np.float32)
        values = [float(measure(w, X)) for measure in measures]
        assert all(b >= a - 1e-6 for a, b in itertools.pairwise(values))
        assert values[1] >= 0


@pytest.mark.parametrize("p", [1, 1.5, 2, math.inf])
def test_the_maximizer_lies_in_the_region(p):
    measure = asam_jax.maximizer(wavy, rho=0.7, operator=PLAIN, p=p, steps=6)
    for seed in range(5):
        w = np.random.default_rng(seed).normal(size=6).astype(np.float32)
        eps, rise = measure(w, X)
        assert np.linalg.norm(np.asarray(eps) / scales(PLAIN, w), p) <= 0.7 * (1 + 1e-5)
        assert float(rise) == pytest.approx(float(wavy(w + eps, X) - wavy(w, X)), abs=1e-5)


def test_coordinates_of_zero_scale_are_not_perturbed():
    w = jnp.array([1.0, 0.0, -2.0, 0.0, 1.0, 0.5])
    for steps in (1, 4):
        measure = asam_jax.maximizer(wavy, rho=0.5, operator=PLAIN, steps=steps)
        eps, rise = measure(w, X)
        np.testing.assert_array_equal(eps == 0, w == 0)
        assert rise > 0 and measure(0 * w, X)[1] == 0
    average = asam_jax.average_sharpness(wavy, sigma=1.0, operator=PLAIN)
    assert average(0 * w, X, KEY) == 0
    assert asam_jax.average_sharpness(wavy, sigma=0.0)(w, X, KEY) == 0


def test_nan_propagates_and_half_precision_gives_float32():
    for steps in (1, 3):
        measure = asam_jax.sharpness(lambda w, x: jnp.sum(w) * jnp.nan, rho=0.5, steps=steps)
        assert jnp.isnan(measure(W, X))
    loss = lambda w, x: jnp.mean(x.astype(w.dtype) @ w)  # noqa: E731
    eps, rise = asam_jax.maximizer(loss, rho=0.5, steps=3)(W.astype(jnp.bfloat16), X)
    assert (eps.dtype, rise.dtype) == (jnp.bfloat16, jnp.float32)


def test_a_quadratics_average_is_half_the_trace():
    """sigma^2 / 2 tr(T H T), within five standard errors of the pairs that were drawn."""
    samples, sigma, t = 600, 0.1, scales(SHIFTED, W)
    thth = t[:, None] * HESSIAN * t
    expected = 0.5 * sigma**2 * np.trace(thth)
    error = sigma**2 * np.sqrt(np.sum(thth**2) / 2) / np.sqrt(samples / 2)
    how = dict(sigma=sigma, samples=samples, operator=SHIFTED)
    measure = asam_jax.average_sharpness(quadratic, **how)
    assert float(measure(W, X, KEY)) == pytest.approx(expected, abs=5 * error)
    assert 5 * error < 0.6 * expected
    pairs = asam_jax.average_sharpness(linear, sigma=0.5, samples=4)
    assert abs(float(pairs(W, X, KEY))) < 1e-6


def test_jit_does_not_change_an_average():
    measure = asam_jax.average_sharpness(wavy, sigma=0.3, samples=3)
    value = jax.jit(measure)(W, jnp.asarray(X), KEY)
    np.testing.assert_allclose(value, measure(W, X, KEY), rtol=1e-4)
