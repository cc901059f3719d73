"""Adaptive sharpness against closed forms, against other searches, and group by group."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import asam_jax
from asam_jax import _sharpness

FEW_ORDERS = [1, 1.5, 2, math.inf]
OPERATORS = {
    "identity": asam_jax.identity(),
    "elementwise": asam_jax.elementwise(0.0),
    "shifted": asam_jax.elementwise(0.5),
}
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
@pytest.mark.parametrize("operator", OPERATORS.values(), ids=OPERATORS)
def test_a_linear_losss_sharpness_is_the_dual_norm(operator, p):
    """rho ||T g||_q, with one step and with many."""
    q = {1: math.inf, math.inf: 1}.get(p) or p / (p - 1)
    expected = 0.3 * np.linalg.norm(scales(operator, W) * X.mean(0), q)
    for steps in (1, 5):
        value = asam_jax.sharpness(linear, W, X, rho=0.3, operator=operator, p=p, steps=steps)
        assert float(value) == pytest.approx(expected, rel=1e-5)


def test_one_step_on_a_quadratic_loss():
    """<g, eps> + <eps, H eps> / 2 with eps along T^2 g."""
    w = np.asarray(W, np.float64)
    t, g = np.abs(w) + 0.5, HESSIAN @ w
    eps = 0.3 * t**2 * g / np.linalg.norm(t * g)
    value = asam_jax.sharpness(quadratic, W, X, rho=0.3, operator=OPERATORS["shifted"])
    assert float(value) == pytest.approx(g @ eps + 0.5 * eps @ HESSIAN @ eps, rel=1e-5)


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


@pytest.mark.parametrize("p", [1, 2, math.inf])
@pytest.mark.parametrize("operator", OPERATORS.values(), ids=OPERATORS)
def test_many_steps_find_a_convex_quadratics_maximum(operator, p, x64):
    """A convex function is largest at a vertex of the region, where that is a polytope."""
    w = np.asarray(W, np.float64)
    t = scales(operator, w)
    h, g, rho = t[:, None] * HESSIAN * t, t * (HESSIAN @ w), 1.5
    if p == 2:
        expected = ball_maximum(h, g, rho)
    else:
        vertices = itertools.product([-rho, rho], repeat=6)
        if p == 1:
            vertices = (s * row for s in (-rho, rho) for row in np.eye(6))
        expected = max(g @ u + 0.5 * u @ h @ u for u in map(np.asarray, vertices))
    steps, restarts = (60, 4) if p == 2 else (6, 40)
    value = asam_jax.sharpness(
        quadratic, w, X, rho=rho, operator=operator, p=p, steps=steps, restarts=restarts
    )
    assert float(value) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("m", [3, 12])
def test_groups_are_averaged(m, steps):
    groups = [
        asam_jax.maximizer(wavy, W, X[i : i + m], rho=0.5, steps=steps, restarts=0)
        for i in range(0, 12, m)
    ]
    for (eps, rise), i in zip(groups, range(0, 12, m), strict=True):
        by_hand = wavy(W + eps, X[i : i + m]) - wavy(W, X[i : i + m])
        np.testing.assert_allclose(rise, by_hand, atol=1e-6)
    value = asam_jax.sharpness(wavy, W, X, rho=0.5, m=m, steps=steps, restarts=0)
    assert float(value) == pytest.approx(np.mean([rise for _, rise in groups]), abs=1e-6)


@given(seed=st.integers(0, 2**32 - 1), rho=st.floats(0.01, 5), p=st.sampled_from(FEW_ORDERS))
def test_more_steps_and_restarts_never_find_less(seed, rho, p):
    w = np.random.default_rng(seed).normal(size=6).astype(np.float32)
    key = jax.random.key(seed % 1000)
    values = [
        float(asam_jax.sharpness(wavy, w, X, rho=rho, p=p, steps=steps, restarts=n, key=key))
        for steps, n in [(1, 0), (2, 0), (5, 0), (5, 1), (5, 3)]
    ]
    assert all(b >= a - 1e-6 for a, b in itertools.pairwise(values))
    assert values[1] >= 0


@given(
    seed=st.integers(0, 2**32 - 1),
    p=st.sampled_from(FEW_ORDERS),
    operator=st.sampled_from(list(OPERATORS.values())),
    steps=st.sampled_from([1, 4, 11]),
)
def test_the_maximizer_lies_in_the_region(seed, p, operator, steps):
    w = np.random.default_rng(seed).normal(size=6).astype(np.float32)
    eps, rise = asam_jax.maximizer(wavy, w, X, rho=0.7, operator=operator, p=p, steps=steps)
    assert np.linalg.norm(np.asarray(eps) / scales(operator, w), p) <= 0.7 * (1 + 1e-5)
    assert float(rise) == pytest.approx(float(wavy(w + eps, X) - wavy(w, X)), abs=1e-5)


@pytest.mark.parametrize("steps", [1, 4])
def test_pieces_of_a_group_change_nothing(steps):
    whole = asam_jax.sharpness(wavy, W, X, rho=0.5, m=6, steps=steps)
    for size in (1, 2, 3):
        cut = asam_jax.sharpness(wavy, W, X, rho=0.5, m=6, steps=steps, batch_size=size)
        np.testing.assert_allclose(cut, whole, rtol=1e-4)


@pytest.mark.parametrize("rolled", [0, 1])
@pytest.mark.parametrize("steps", [1, 4])
def test_traced_equals_eager(steps, rolled, monkeypatch):
    def measure(w, x, rho):
        return asam_jax.sharpness(
            wavy, w, x, rho=rho, m=6, steps=steps, restarts=rolled, batch_size=3
        )

    expected = measure(W, X, 0.5)
    monkeypatch.setattr(_sharpness, "rolled", lambda *_: bool(rolled))  # as on an accelerator
    np.testing.assert_allclose(jax.jit(measure)(W, X, 0.5), expected, rtol=1e-5)


def test_one_trace_for_many_groups_of_a_numpy_batch():
    traces = []

    def loss(w, x):
        assert x.shape == (2, 6)  # a group, never the whole set
        traces.append(x)
        return linear(w, x)

    for rho in (0.1, 0.2):
        asam_jax.sharpness(loss, W, X, rho=rho, m=2)
        asam_jax.sharpness(loss, W, X, rho=rho, m=2, steps=3)
    assert len(traces) == 4 * 2  # one with the gradient, one without, in each call


def test_coordinates_of_zero_scale_do_not_move():
    w = jnp.array([1.0, 0.0, -2.0, 0.0, 1.0, 0.5])
    for steps in (1, 4):
        eps, rise = asam_jax.maximizer(
            wavy, w, X, rho=0.5, operator=asam_jax.elementwise(0.0), steps=steps
        )
        np.testing.assert_array_equal(eps == 0, w == 0)
        assert rise > 0
    everywhere = asam_jax.sharpness(
        wavy, 0 * w, X, rho=0.5, operator=asam_jax.elementwise(0.0), steps=4
    )
    assert everywhere == 0


def test_nan_comes_out():
    for steps in (1, 3):
        value = asam_jax.sharpness(lambda w, x: jnp.sum(w) * jnp.nan, W, X, rho=0.5, steps=steps)
        assert jnp.isnan(value)


def test_half_precision_parameters_give_a_float32_value():
    def loss(w, x):
        return jnp.mean(x.astype(w.dtype) @ w)

    w = W.astype(jnp.bfloat16)
    eps, rise = asam_jax.maximizer(loss, w, X, rho=0.5, steps=3)
    assert (eps.dtype, rise.dtype) == (jnp.bfloat16, jnp.float32)


@pytest.mark.parametrize("size", [5, 0, -1, 2.0, True])
def test_batch_size_that_does_not_divide_the_group(size):
    with pytest.raises(ValueError, match="batch_size must be a positive integer that divides the"):
        asam_jax.sharpness(linear, W, X, rho=0.1, m=6, batch_size=size)


def test_other_bad_input():
    with pytest.raises(ValueError, match="restarts must be an integer of at least 0"):
        asam_jax.sharpness(linear, W, X, rho=0.1, steps=2, restarts=-1)
    with pytest.raises(TypeError, match="p must be a number"):
        asam_jax.sharpness(linear, W, X, rho=0.1, p="inf")
    with pytest.raises(TypeError, match="loss_fn must be callable"):
        asam_jax.maximizer(None, W, X, rho=0.1)
    with pytest.raises(TypeError, match="operator must be callable"):
        asam_jax.maximizer(linear, W, X, rho=0.1, operator=1.0)
    with pytest.raises(TypeError, match="params has dtype int32"):
        asam_jax.sharpness(linear, jnp.arange(6), X, rho=0.1)
