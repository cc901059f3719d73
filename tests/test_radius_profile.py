"""The rise over radii against closed forms, and what it costs in the compiled program."""

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest

import asam_jax
from asam_jax import _radius_profile

RNG = np.random.default_rng(0)
W = {"kernel": RNG.normal(size=(3, 2)), "bias": RNG.normal(size=2)}
ROOTS = RNG.normal(size=(12, 8))
RADII = np.array([0.0, 0.1, 0.5, 2.0])


def quadratic(w, x):
    """The mean over examples of (x . w)^2 / 2, so that the Hessian is x^T x / n."""
    flat = jnp.concatenate([w["kernel"].reshape(-1), w["bias"]])
    return jnp.mean(jnp.square(x.astype(flat.dtype) @ flat)) / 2


def by_hand(w, x, rho, p):
    """<g, eps> + <eps, H eps> / 2, <g, eps> / rho and the loss, in NumPy."""
    flat = lambda tree: np.concatenate([tree["kernel"].reshape(-1), tree["bias"]])  # noqa: E731
    hessian = x.T @ x / len(x)
    g = hessian @ flat(w)
    grads = {"kernel": g[:6].reshape(3, 2), "bias": g[6:]}
    eps = flat(oracle.perturbation(w, grads, rho=rho, p=p))
    one = flat(oracle.perturbation(w, grads, rho=1.0, p=p))
    return g @ eps + eps @ hessian @ eps / 2, g @ one, flat(w) @ hessian @ flat(w) / 2


@pytest.mark.parametrize(("p", "m", "size"), [(2, 4, 2), (1, None, None), (np.inf, None, None)])
def test_a_quadratic_loss_in_closed_form(p, m, size, x64):
    """Each group of m examples has its own eps, and all is averaged over groups."""
    profile = asam_jax.radius_profile(quadratic, W, ROOTS, RADII, p=p, m=m, batch_size=size)
    groups = np.split(ROOTS, 1 if m is None else 12 // m)
    expected = np.mean([[by_hand(W, x, rho, p) for rho in RADII] for x in groups], axis=0)
    np.testing.assert_allclose(profile.rise, expected[:, 0], rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(profile.linear, RADII * expected[0, 1], rtol=1e-12)
    np.testing.assert_allclose(profile.slope, expected[0, 1], rtol=1e-12)
    np.testing.assert_allclose(profile.loss, expected[0, 2], rtol=1e-12)


def narrow(tree, dtype=jnp.float32):
    return jax.tree.map(lambda a: jnp.asarray(a, dtype), tree)


def test_under_jit_one_trace_serves_all_radii(monkeypatch):
    monkeypatch.setattr(_radius_profile, "rolled", lambda *_: True)  # as on an accelerator
    traces = []

    @jax.jit
    def measure(w, x, radii):
        traces.append(1)
        return asam_jax.radius_profile(quadratic, w, x, radii, m=6, batch_size=3)

    w, x = narrow(W), narrow(ROOTS)
    for radii in (RADII, RADII[::-1]):
        got = measure(w, x, jnp.asarray(radii, jnp.float32))
        expected = [[by_hand(W, ROOTS[i : i + 6], r, 2.0) for r in radii] for i in (0, 6)]
        np.testing.assert_allclose(got.rise, np.mean(expected, 0)[:, 0], rtol=2e-5, atol=1e-6)
    assert len(traces) == 1


def test_it_costs_a_gradient_and_a_loss_for_each_radius():
    """Counted by XLA: at 64 examples of 32 inputs eps itself is a percent."""

    def loss(w, x):
        return jnp.mean(jnp.square(jnp.tanh(x @ w["in"]) @ w["out"]))

    w = {"in": jnp.ones((32, 32)), "out": jnp.ones((32, 8))}
    x = jnp.ones((1024, 32))

    def flops(function, *args):
        return (jax.jit(function).lower(*args).compile().cost_analysis() or {})["flops"]

    one_loss, gradient = flops(loss, w, x), flops(jax.value_and_grad(loss), w, x)
    profile = lambda w, x, r: asam_jax.radius_profile(loss, w, x, r)  # noqa: E731
    assert flops(profile, w, x, jnp.ones(3)) <= 1.05 * (gradient + 3 * one_loss)


def test_the_slope_is_safe_in_range():
    linear = lambda w, x: jnp.mean(x @ w)  # noqa: E731
    for size in (1e-30, 1e30):
        x = np.full((2, 4), size, np.float32)
        profile = asam_jax.radius_profile(
            linear, jnp.ones(4), x, [0.5], operator=asam_jax.identity()
        )
        np.testing.assert_allclose(profile.slope, 2 * size, rtol=1e-6)
    flat = asam_jax.radius_profile(linear, jnp.ones(4), 0 * x, [0.5])
    assert (float(flat.slope), float(flat.rise[0])) == (0.0, 0.0)


def test_frozen_leaves_and_half_precision():
    operator = asam_jax.masked(asam_jax.identity(), {"kernel": True, "bias": False})
    w = narrow(W, jnp.bfloat16)
    profile = asam_jax.radius_profile(quadratic, w, narrow(ROOTS), [0.5], operator=operator)
    assert {leaf.dtype for leaf in profile} == {jnp.dtype(jnp.float32)}
    g = jax.grad(quadratic)(narrow(W), narrow(ROOTS))["kernel"]
    np.testing.assert_allclose(profile.slope, np.linalg.norm(g), rtol=2e-2)


@pytest.mark.parametrize("radii", [0.5, [], [[0.1]], ["a"], np.array([True])])
def test_radii_that_are_none(radii):
    with pytest.raises(
        ValueError, match=r"radii must be real numbers along one axis.*pass \[rho\]"
    ):
        asam_jax.radius_profile(quadratic, narrow(W), narrow(ROOTS), radii)


def test_other_bad_input():
    with pytest.raises(ValueError, match=r"radii\[1\] must be at least 0"):
        asam_jax.radius_profile(quadratic, narrow(W), narrow(ROOTS), [0.1, -0.1])
    with pytest.raises(ValueError, match="m must be a positive integer that divides"):
        asam_jax.radius_profile(quadratic, narrow(W), narrow(ROOTS), [0.1], m=5)
