"""Zero, huge, tiny, NaN and half-precision inputs of the perturbation."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import asam_jax

ORDERS = [1.0, 1.2, 2.0, 3.0, float("inf")]
# A scale for each filter, for each entry, and for none.
SHAPES = {"conv": {"kernel": (3, 3, 2, 2)}, "dense": {"kernel": (3, 4), "bias": (4,)}}
IDENTITY, FILTERWISE = asam_jax.identity(), asam_jax.filterwise()


@functools.partial(jax.jit, static_argnames=("operator", "p"))
def perturbation(params, grads, rho, operator=FILTERWISE, p=2.0):
    return asam_jax.perturbation(params, grads, rho=rho, operator=operator, p=p)


def drawn(dtype, seed):
    rng = np.random.default_rng(seed)
    draw = lambda shape: jnp.asarray(rng.normal(size=shape), dtype)  # noqa: E731
    return jax.tree.map(draw, SHAPES, is_leaf=lambda shape: isinstance(shape, tuple))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("p", ORDERS)
def test_a_zero_gradient_gives_zero(p, dtype):
    params = drawn(dtype, 0)
    zeros = jax.tree.map(jnp.zeros_like, params)
    chex.assert_trees_all_equal(perturbation(params, zeros, 0.5, p=p), zeros)


@pytest.mark.parametrize("p", ORDERS)
def test_nan_and_infinity_propagate(p):
    params, grads = drawn(jnp.float32, 0), drawn(jnp.float32, 1)
    for value in (jnp.nan, jnp.inf, -jnp.inf):
        grads["dense"]["bias"] = jnp.array([1.0, value, 0.0, 2.0])
        eps = perturbation(params, grads, 0.5, p=p)
        assert all(jnp.all(jnp.isnan(leaf)) for leaf in jax.tree.leaves(eps))


@pytest.mark.parametrize("p", ORDERS)
def test_eps_does_not_depend_on_the_gradients_scale(p):
    rng = np.random.default_rng(0)
    w, g = rng.normal(size=(2, 4, 5)).astype(np.float32)
    expected = perturbation(w, g, 0.5, p=p)
    for magnitude in (1e-30, 1e-20, 1e20, 1e30):
        eps = perturbation(w, g * np.float32(magnitude), 0.5, p=p)
        np.testing.assert_allclose(eps, expected, rtol=1e-5)


def by_float64(w, g, rho):
    """rho T^2 g / ||T g||_2 for T = |w|, where 1e-60 and 1e60 are ordinary numbers."""
    w, g = (jax.tree.map(np.float64, tree) for tree in (w, g))
    length = np.sqrt(sum(np.sum((w[k] * g[k]) ** 2) for k in w))
    return {k: rho * w[k] ** 2 * g[k] / length for k in w}


def agrees(eps, expected):
    """To the last digits where eps is a normal float32, and near zero where it is not."""
    for k, value in eps.items():
        normal = np.abs(expected[k]) > 1e-37
        np.testing.assert_allclose(
            np.asarray(value)[normal], expected[k][normal], rtol=2e-5, err_msg=k
        )
        assert np.all(np.abs(np.asarray(value)[~normal]) < 2e-37), k


SCALED = asam_jax.elementwise(0.0, adapt=asam_jax.all_leaves)


def test_entries_from_1e_minus_30_to_1e30_in_one_tree():
    """Leaves of one magnitude each, one leaf of all magnitudes, and all weights one."""
    magnitudes = (10.0 ** np.arange(-30, 31, 5)).astype(np.float32)
    both = [(a, b) for a in magnitudes[::3] for b in magnitudes[::3]]
    rng = np.random.default_rng(0)
    mixed = rng.choice(magnitudes, 200) * rng.normal(size=200).astype(np.float32)
    cases = [
        ({f"{a}_{b}": a for a, b in both}, {f"{a}_{b}": -b for a, b in both}),
        ({"w": np.ones(200, np.float32)}, {"w": mixed}),
        ({"w": rng.permutation(mixed), "v": np.ones(9, np.float32)}, {"w": mixed, "v": mixed[:9]}),
        # Of one kind alone, where the sums of the other two kinds are zero.
        ({"w": np.ones(5, np.float32)}, {"w": np.float32([1e-30, 2e-30, -1e-32, 0.0, 3e-31])}),
        ({"w": np.ones(5, np.float32)}, {"w": np.float32([1e30, 2e30, -1e28, 0.0, 3e29])}),
        ({"w": np.ones(5, np.float32)}, {"w": np.float32([1e-18, 2e-20, -1e-22, 0.0, 3e-19])}),
        ({"w": np.ones(5, np.float32)}, {"w": np.float32([1e18, 2e20, -1e22, 0.0, 3e19])}),
    ]
    make = jax.jit(functools.partial(asam_jax.perturbation, rho=0.5, operator=SCALED))
    for w, g in cases:
        agrees(make(w, g), by_float64(w, g, 0.5))


@pytest.mark.parametrize("size", [1, 3, 1 << 16])
def test_norms_near_the_borders_of_small_middle_and_large(size):
    """Whichever power of two all entries have, in sums of many and of few."""
    rng = np.random.default_rng(1)
    direction = rng.uniform(1, 2, size).astype(np.float32)
    expected = direction / np.linalg.norm(direction.astype(np.float64))
    for exponent in range(-100, 101, 4):
        g = direction * np.float32(2.0**exponent)
        eps = perturbation(np.ones_like(g), g, 1.0, IDENTITY)
        np.testing.assert_allclose(eps, expected, rtol=2e-5)


def test_filter_norms_of_huge_and_tiny_filters():
    kernel = np.ones((3, 3, 4, 4), np.float32) * np.float32([1e-30, 1.0, 1e30, 0.0])
    scale = asam_jax.filterwise(0.0)({"kernel": kernel})["kernel"]
    chex.assert_shape(scale, (1, 1, 1, 4))
    np.testing.assert_allclose(np.ravel(scale), [6e-30, 6.0, 6e30, 0.0], rtol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("p", ORDERS)
def test_half_precision_eps_is_the_float32_eps_rounded_once(p, dtype):
    params, grads = drawn(dtype, 0), drawn(dtype, 1)
    wide = jax.tree.map(jnp.float32, (params, grads))
    eps = perturbation(params, grads, 0.5, p=p)
    chex.assert_trees_all_equal(eps, optax.tree.cast(perturbation(*wide, 0.5, p=p), dtype))


def test_mixed_dtypes_share_one_norm():
    w = {"a": jnp.full(4, 3.0, jnp.bfloat16), "b": jnp.full(9, 1.0, jnp.float32)}
    eps = perturbation(w, w, 1.0, IDENTITY)
    length = np.sqrt(4 * 9 + 9)
    assert (eps["a"].dtype, eps["b"].dtype) == (jnp.bfloat16, jnp.float32)
    np.testing.assert_allclose(eps["a"].astype(jnp.float32), 3 / length, rtol=4e-3)
    np.testing.assert_allclose(eps["b"], 1 / length, rtol=1e-6)


def test_the_norm_of_four_million_entries():
    g = jnp.full((2048, 2048), 0.1)
    eps = perturbation(g, g, 1.0, IDENTITY)
    np.testing.assert_allclose(eps[0, :4], 1 / 2048, rtol=2e-5)


def test_ties_share_the_radius_at_p_one():
    w, g = jnp.array([1.0, 2.0, 1.0]), jnp.array([2.0, -1.0, 1.0])
    eps = asam_jax.perturbation(w, g, rho=1.0, operator=SCALED, p=1)
    np.testing.assert_allclose(eps, [0.5, -1.0, 0.0], rtol=1e-6)


def test_entries_that_rounding_parts_are_ties_at_p_one():
    """The largest may be computed twice in a program, and miss itself by a rounding."""
    g = jnp.array([np.nextafter(np.float32(1), np.float32(0)), -1.0, 1 - 1e-4, 0.0])
    np.testing.assert_allclose(perturbation(g, g, 1.0, IDENTITY, 1), [0.5, -0.5, 0, 0], rtol=1e-6)


def test_scales_that_are_all_zero_give_zero():
    w = jnp.zeros(3)
    chex.assert_trees_all_equal(asam_jax.perturbation(w, jnp.ones(3), rho=1.0, operator=SCALED), w)
