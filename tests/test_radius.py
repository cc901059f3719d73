"""radius_profile against closed forms, and radius_at."""

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from hypothesis import given
from hypothesis import strategies as st

import asam_jax

RNG = np.random.default_rng(0)
W = {"kernel": RNG.normal(size=(3, 2)), "bias": RNG.normal(size=2)}
ROOTS = RNG.normal(size=(12, 8))
RADII = np.array([0.0, 0.1, 0.5, 2.0])
SAM = asam_jax.identity()


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


@pytest.mark.parametrize(("p", "m"), [(2, 4), (1, None), (np.inf, None)])
def test_a_quadratic_loss_in_closed_form(p, m, x64):
    """Each group of m examples has its own eps, and all is averaged over groups."""
    profile = asam_jax.radius_profile(quadratic, p=p, m=m)(W, ROOTS, RADII)
    groups = np.split(ROOTS, 1 if m is None else 12 // m)
    expected = np.mean([[by_hand(W, x, rho, p) for rho in RADII] for x in groups], axis=0)
    np.testing.assert_allclose(profile.rise, expected[:, 0], rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(profile.linear, RADII * expected[0, 1], rtol=1e-12)
    np.testing.assert_allclose(profile.slope, expected[0, 1], rtol=1e-12)
    np.testing.assert_allclose(profile.loss, expected[0, 2], rtol=1e-12)


def test_one_compilation_serves_all_radii():
    traces = []

    def loss(w, x):
        traces.append(1)
        return quadratic(w, x)

    w, x = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), (W, ROOTS))
    measure = asam_jax.radius_profile(loss, m=6)
    for run in (measure, jax.jit(measure)):
        for radii in (RADII, RADII[::-1]):
            got = run(w, x, jnp.asarray(radii, jnp.float32))
            expected = [[by_hand(W, ROOTS[i : i + 6], r, 2.0) for r in radii] for i in (0, 6)]
            np.testing.assert_allclose(got.rise, np.mean(expected, 0)[:, 0], rtol=2e-5, atol=1e-6)
        assert len(traces) == 2  # with the gradient and without; jit finds the same functions


def test_it_costs_a_gradient_and_a_loss_for_each_radius():
    """Counted by XLA: at 64 examples of 32 inputs eps itself is a percent."""

    def loss(w, x):
        return jnp.mean(jnp.square(jnp.tanh(x @ w["in"]) @ w["out"]))

    w = {"in": jnp.ones((32, 32)), "out": jnp.ones((32, 8))}
    x = jnp.ones((1024, 32))

    def flops(function, *args):
        return (jax.jit(function).lower(*args).compile().cost_analysis() or {})["flops"]

    one_loss, gradient = flops(loss, w, x), flops(jax.value_and_grad(loss), w, x)
    profile = asam_jax.radius_profile(loss)
    assert flops(profile, w, x, jnp.ones(3)) <= 1.05 * (gradient + 3 * one_loss)


def test_the_slope_is_safe_in_range():
    measure = asam_jax.radius_profile(lambda w, x: jnp.mean(x @ w), operator=SAM)
    for size in (1e-30, 1e30):
        x = np.full((2, 4), size, np.float32)
        np.testing.assert_allclose(measure(jnp.ones(4), x, [0.5]).slope, 2 * size, rtol=1e-6)
    flat = measure(jnp.ones(4), 0 * x, [0.5])
    assert (float(flat.slope), float(flat.rise[0])) == (0.0, 0.0)


def profile_of(rise, slope=1.0, loss=1.0):
    rise = jnp.asarray(rise, jnp.float32)
    return asam_jax.RadiusProfile(rise, rise, jnp.float32(slope), jnp.float32(loss))


def test_on_a_quadratic_radius_at_is_the_root_as_the_grid_gets_finer():
    """L(w + eps) - L(w) = rho |w| + rho^2 / 2 for SAM, with |w| = 1."""
    loss = lambda w, x: jnp.mean(x) * 0.5 * jnp.sum(w**2)  # noqa: E731
    radii = jnp.linspace(0.01, 1.0, 100)
    measure = asam_jax.radius_profile(loss, operator=SAM)
    profile = measure(jnp.array([0.6, 0.8]), jnp.ones((1, 1)), radii)
    found = asam_jax.radius_at(profile, radii, 0.3, 1.0)
    np.testing.assert_allclose(found, np.sqrt(1 + 2 * 0.3) - 1, atol=3e-5)


@given(
    steps=st.lists(st.floats(0.01, 10.0), min_size=4, max_size=4),
    rises=st.lists(st.floats(-1.0, 10.0), min_size=4, max_size=4),
    target=st.floats(0.01, 12.0),
)
def test_radius_at_is_the_first_crossing_of_the_polygon_through_0(steps, rises, target):
    radii = np.cumsum(steps, dtype=np.float32)
    rises = np.asarray(rises, np.float32)
    found = float(asam_jax.radius_at(profile_of(rises), radii, target, 1.0))
    x, y = np.concatenate([[0], radii]), np.concatenate([[0], rises])
    fine = np.sort(np.concatenate([x, np.linspace(0, radii[-1], 20001)]))
    above = fine[np.interp(fine, x, y) >= np.float32(target)]
    expected = above[0] if len(above) else radii[-1]
    assert abs(found - expected) <= 2e-4 * radii[-1]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_where_the_profile_says_nothing_the_default_stays(bad):
    radii, ask = [1.0, 2.0, 4.0], jax.jit(lambda *args: asam_jax.radius_at(*args))
    assert asam_jax.radius_at(profile_of([0.1, bad, bad]), radii, 0.3, 9.0) == 1.0
    for profile in (
        profile_of([bad, bad, bad]),
        profile_of([0.1, 0.2, 0.4], slope=bad),
        profile_of([0.1, 0.2, 0.4], loss=bad),
    ):
        assert ask(profile, jnp.array(radii), 0.3, 9.0) == 9.0


def test_the_rule_in_training_survives_one_overflow():
    x, y = jax.random.normal(jax.random.key(0), (64, 4)), jnp.ones((64, 1))
    w = {"kernel": jax.random.normal(jax.random.key(1), (4, 1))}
    measure = asam_jax.radius_profile(lambda w, b: jnp.mean((b[0] @ w["kernel"] - b[1]) ** 2))

    @jax.jit
    def tuned(rho, batch):
        radii = jnp.array([0.25, 0.5, 1.0, 2.0, 4.0]) * rho
        return asam_jax.radius_at(measure(w, batch, radii), radii, rise=0.2, default=rho)

    rho, seen = jnp.float32(1.0), []
    for number in range(6):
        rho = tuned(rho, (x * jnp.inf if number == 2 else x, y))
        seen.append(float(rho))
    np.testing.assert_allclose(seen, seen[-1], rtol=0.05)
    np.testing.assert_allclose(seen[-1], 1.7, rtol=0.05)
    assert seen[2] == seen[1]


@pytest.mark.parametrize(
    ("radii", "rise", "said"),
    [
        ([1.0, 2.0, 3.0], 0.3, "radii must be the profile"),
        ([2.0, 1.0], 0.3, "radii must be the profile"),
        ([0.0, 1.0], 0.3, "increasing from above 0"),
    ],
)
def test_bad_arguments(radii, rise, said):
    with pytest.raises(ValueError, match=said):
        asam_jax.radius_at(profile_of([0.1, 0.5]), radii, rise, 1.0)


def test_a_negative_radius():
    with pytest.raises(ValueError, match="the smallest of radii must be at least 0"):
        asam_jax.radius_profile(quadratic)(W, ROOTS, [0.1, -0.1])
