"""The perturbation against tests/oracle.py: every p, operator, leaf rule and layout."""

import math

import jax
import numpy as np
import oracle
import pytest
from hypothesis import given
from hypothesis import strategies as st

import asam_jax

ORDERS = [1, 1.2, 1.5, 2, 3, 7, math.inf]
# Each kernel serves both layouts: its filters run along the last or along the first axis.
SHAPES = {
    "conv/kernel": (3, 2, 3, 5),
    "conv1d/kernel": (3, 2, 4),
    "dense/kernel": (3, 4),
    "dense/bias": (4,),
    "norm/scale": (4,),
    "temperature": (),
}
ADAPT = {"not_bias": asam_jax.not_bias, "all": asam_jax.all_leaves}
FILTER_AXES = {"flax": asam_jax.flax_filter_axes, "torch": asam_jax.torch_filter_axes}
TOLERANCE = {np.float32: 2e-5, np.float64: 1e-12}
CASES = [
    ("identity", "all", "flax"),
    ("elementwise", "not_bias", "flax"),
    ("elementwise", "all", "flax"),
    ("filterwise", "not_bias", "flax"),
    ("filterwise", "all", "flax"),
    ("filterwise", "not_bias", "torch"),
    ("filterwise", "all", "torch"),
]


def draw(dtype, seed):
    rng = np.random.default_rng(seed)
    return [
        {name: np.asarray(rng.normal(size=shape), dtype) for name, shape in SHAPES.items()}
        for _ in range(2)
    ]


def ours(operator, eta, leaves, layout):
    if operator == "identity":
        return asam_jax.identity()
    if operator == "elementwise":
        return asam_jax.elementwise(eta, adapt=ADAPT[leaves])
    return asam_jax.filterwise(eta, adapt=ADAPT[leaves], filter_axes=FILTER_AXES[layout])


def assert_equals_oracle(dtype, operator, leaves, layout, *, p, rho=0.5, eta=0.01, seed=0):
    w, g = draw(dtype, seed)
    expected = oracle.perturbation(
        w, g, rho=rho, operator=operator, p=p, eta=eta, leaves=leaves, layout=layout
    )
    with jax.enable_x64(dtype == np.float64):
        made = asam_jax.perturbation(
            w, g, rho=rho, operator=ours(operator, eta, leaves, layout), p=p
        )
        for name, eps in made.items():
            assert eps.dtype == dtype
            np.testing.assert_allclose(eps, expected[name], rtol=TOLERANCE[dtype], err_msg=name)


@pytest.mark.parametrize("p", ORDERS)
@pytest.mark.parametrize(("operator", "leaves", "layout"), CASES)
def test_every_entry_equals_the_oracles(operator, leaves, layout, p):
    assert_equals_oracle(np.float64, operator, leaves, layout, p=p)


@pytest.mark.parametrize("p", ORDERS)
def test_every_entry_in_float32(p):
    for case in (CASES[0], CASES[1], CASES[3]):
        assert_equals_oracle(np.float32, *case, p=p)


@given(
    case=st.sampled_from(CASES),
    p=st.one_of(st.sampled_from(ORDERS), st.floats(1.1, 20)),
    rho=st.floats(1e-3, 10),
    eta=st.floats(0, 1),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_p_rho_and_eta_in_float64(case, p, rho, eta, seed):
    assert_equals_oracle(np.float64, *case, p=p, rho=rho, eta=eta, seed=seed)


@pytest.mark.parametrize("p", ORDERS)
@pytest.mark.parametrize("operator", ["identity", "elementwise", "filterwise"])
def test_the_oracle_maximizes_the_linearised_loss(operator, p):
    """Hoelder's inequality is an equality at eps, and eps lies on the region's border."""
    w, g = draw(np.float64, 1)
    eps = oracle.perturbation(w, g, rho=0.7, operator=operator, p=p)
    t = oracle.scales(w, operator)
    scaled = np.concatenate([np.ravel(eps[name] / t[name]) for name in w])
    tg = np.concatenate([np.ravel(t[name] * g[name]) for name in w])
    gain = sum(np.sum(g[name] * eps[name]) for name in w)
    q = {1: math.inf, math.inf: 1}.get(p) or p / (p - 1)
    assert np.linalg.norm(scaled, p) == pytest.approx(0.7, rel=1e-12)
    assert gain == pytest.approx(0.7 * np.linalg.norm(tg, q), rel=1e-12)
