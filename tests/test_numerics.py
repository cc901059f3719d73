"""Zero, huge, tiny, NaN and half-precision inputs of the perturbation."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import asam_jax

ORDERS = [1.0, 1.2, 1.5, 2.0, 3.0, 7.0, float("inf")]
OPERATORS = {
    "identity": asam_jax.identity(),
    "elementwise": asam_jax.elementwise(),
    "filterwise": asam_jax.filterwise(),
}


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("p", ORDERS)
def test_zero_gradient_gives_zero(p, dtype):
    params = {"kernel": jnp.ones((3, 3, 2, 2), dtype), "bias": jnp.zeros(2, dtype)}
    zeros = jax.tree.map(jnp.zeros_like, params)
    for operator in OPERATORS.values():
        eps = asam_jax.perturbation(params, zeros, rho=0.5, operator=operator, p=p)
        chex.assert_trees_all_equal(eps, zeros)


@pytest.mark.parametrize("value", [jnp.nan, jnp.inf, -jnp.inf])
@pytest.mark.parametrize("p", ORDERS)
@pytest.mark.parametrize("operator", OPERATORS.values(), ids=OPERATORS)
def test_nan_and_infinity_come_out(operator, p, value):
    params = {"kernel": jnp.ones((2, 2, 2, 3)), "bias": jnp.ones(3)}
    grads = {"kernel": jnp.ones((2, 2, 2, 3)), "bias": jnp.array([1.0, value, 0.0])}
    eps = asam_jax.perturbation(params, grads, rho=0.5, operator=operator, p=p)
    assert all(jnp.all(jnp.isnan(leaf)) for leaf in jax.tree.leaves(eps))


@pytest.mark.parametrize("magnitude", [1e-30, 1e-20, 1.0, 1e20, 1e30])
@pytest.mark.parametrize("p", ORDERS)
def test_eps_does_not_depend_on_the_gradients_scale(magnitude, p):
    rng = np.random.default_rng(0)
    w, g = rng.normal(size=(2, 4, 5)).astype(np.float32)
    expected = asam_jax.perturbation(w, g, rho=0.5, p=p)
    eps = asam_jax.perturbation(w, g * np.float32(magnitude), rho=0.5, p=p)
    chex.assert_trees_all_close(eps, expected, rtol=1e-5)


def test_magnitudes_that_differ_between_leaves():
    """rho T^2 g / ||T g||_2 in float64, where 1e-60 and 1e60 are ordinary numbers."""
    magnitudes = [1e-30, 1e-15, 1.0, 1e15, 1e30]
    w = {f"{a}_{b}": np.float32(a) for a in magnitudes for b in magnitudes}
    g = {f"{a}_{b}": np.float32(-b) for a in magnitudes for b in magnitudes}
    eps = asam_jax.perturbation(w, g, rho=0.5, operator=asam_jax.elementwise(0.0))
    length = np.sqrt(sum((float(w[k]) * float(g[k])) ** 2 for k in w))
    for k, value in eps.items():
        expected = 0.5 * float(w[k]) ** 2 * float(g[k]) / length
        if abs(expected) > 1e-37:  # else it is no normal float32
            assert float(value) == pytest.approx(expected, rel=2e-5)
        else:
            assert abs(float(value)) < 2e-37


def test_filter_norms_of_huge_and_tiny_filters():
    kernel = np.ones((3, 3, 4, 3), np.float32) * np.float32([1e-30, 1.0, 1e30])
    scale = asam_jax.filterwise(0.0)({"kernel": kernel})["kernel"]
    chex.assert_shape(scale, (1, 1, 1, 3))
    np.testing.assert_allclose(np.ravel(scale), [6e-30, 6.0, 6e30], rtol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("p", ORDERS)
def test_half_precision_eps_is_the_float32_eps_rounded_once(p, dtype):
    rng = np.random.default_rng(1)
    w = jnp.asarray(rng.normal(size=(3, 3, 4, 8)), dtype)
    g = jnp.asarray(rng.normal(size=(3, 3, 4, 8)), dtype)
    for operator in OPERATORS.values():
        eps = asam_jax.perturbation(w, g, rho=0.5, operator=operator, p=p)
        wide = asam_jax.perturbation(
            w.astype(jnp.float32), g.astype(jnp.float32), rho=0.5, operator=operator, p=p
        )
        assert eps.dtype == dtype
        chex.assert_trees_all_equal(eps, wide.astype(dtype))


def test_mixed_dtypes_share_one_norm():
    w = {"a": jnp.full(4, 3.0, jnp.bfloat16), "b": jnp.full(9, 1.0, jnp.float32)}
    eps = asam_jax.perturbation(w, w, rho=1.0, operator=asam_jax.identity())
    length = np.sqrt(4 * 9 + 9)
    assert (eps["a"].dtype, eps["b"].dtype) == (jnp.bfloat16, jnp.float32)
    np.testing.assert_allclose(eps["a"].astype(jnp.float32), 3 / length, rtol=4e-3)
    np.testing.assert_allclose(eps["b"], 1 / length, rtol=1e-6)


def test_norm_of_four_million_entries():
    g = jnp.full((2048, 2048), 0.1)
    eps = asam_jax.perturbation(g, g, rho=1.0, operator=asam_jax.identity())
    np.testing.assert_allclose(eps[0, :4], 1 / 2048, rtol=2e-5)


@pytest.mark.parametrize("p", [1.0, 1.5, 2.0, 3.0, float("inf")])
def test_traced_p_rho_and_eta_agree_with_static_ones(p):
    rng = np.random.default_rng(2)
    w, g = rng.normal(size=(2, 4, 5)).astype(np.float32)

    @jax.jit
    def traced(p, rho, eta):
        return asam_jax.perturbation(w, g, rho=rho, operator=asam_jax.elementwise(eta), p=p)

    expected = asam_jax.perturbation(w, g, rho=0.3, operator=asam_jax.elementwise(0.1), p=p)
    chex.assert_trees_all_close(traced(p, 0.3, 0.1), expected, rtol=1e-5)


def test_ties_share_the_radius_at_p_one():
    w, g = jnp.array([1.0, 2.0, 1.0]), jnp.array([2.0, -1.0, 1.0])
    eps = asam_jax.perturbation(w, g, rho=1.0, operator=asam_jax.elementwise(0.0), p=1)
    np.testing.assert_allclose(eps, [0.5, -1.0, 0.0], rtol=1e-6)


@pytest.mark.parametrize("p", [1, pytest.param(jnp.array(1.0), id="traced")])
def test_entries_that_rounding_parts_are_ties_at_p_one(p):
    """The largest may be computed twice in a program, and miss itself by a rounding."""
    g = jnp.array([np.nextafter(np.float32(1), np.float32(0)), -1.0, 1 - 1e-4, 0.0])
    eps = jax.jit(
        lambda p: asam_jax.perturbation(g, g, rho=1.0, operator=asam_jax.identity(), p=p),
        static_argnums=() if isinstance(p, jax.Array) else 0,
    )(p)
    np.testing.assert_allclose(eps, [0.5, -0.5, 0.0, 0.0], rtol=1e-6)


def test_all_zero_scales_do_not_move():
    w = jnp.zeros(3)
    eps = asam_jax.perturbation(w, jnp.ones(3), rho=1.0, operator=asam_jax.elementwise(0.0))
    chex.assert_trees_all_equal(eps, w)
