"""The terms of Theorem 3 against the formula, evaluated another way."""

import math
from fractions import Fraction

import jax.numpy as jnp
import numpy as np
import pytest

import asam_jax

GOOD = {"loss": 0.1, "sharpness": 0.02, "norm": 3.0, "k": 10, "n": 50_000, "rho": 0.5}


def complexity(norm, k, n, rho, eta, delta):
    """sqrt((k log(1 + ...) + 4 log(n / delta)) / (n - 1)), as one product under one logarithm."""
    spread = 1 + np.sqrt(np.log(n) / k)
    inside = 1 + (norm * spread) ** 2 / (eta * rho) ** 2
    nats = k * np.log2(inside) / np.log2(np.e) + 4 * (np.log(n) - np.log(delta))
    return np.sqrt(nats / (n - 1))


@pytest.mark.parametrize("norm", [0.0, 1e-3, 40.0])
@pytest.mark.parametrize(("k", "n"), [(1, 2), (272_474, 50_000), (10, 10**9)])
@pytest.mark.parametrize(("rho", "eta", "delta"), [(0.5, 0.01, 0.05), (2.0, 0.1, 0.9)])
def test_terms_equal_the_closed_form(norm, k, n, rho, eta, delta):
    terms = asam_jax.generalization_bound_terms(
        loss=0.1, sharpness=0.02, norm=norm, k=k, n=n, rho=rho, eta=eta, delta=delta
    )
    expected = complexity(norm, k, n, rho, eta, delta)
    assert terms.complexity == pytest.approx(expected, rel=1e-12)
    assert terms.max_loss == pytest.approx(float(Fraction(12, 100)))
    assert terms.bound_without_constant == pytest.approx(0.12 + expected)
    squares = (terms.norm_term + terms.confidence_term) / (n - 1)
    assert squares == pytest.approx(expected**2, rel=1e-12)
    spread = 1 + math.sqrt(math.log(n) / k)
    assert terms.sigma * math.sqrt(k) * spread == pytest.approx(eta * rho)


def test_a_larger_region_pays_less_complexity_and_more_examples_too():
    def of(**changes):
        return asam_jax.generalization_bound_terms(**{**GOOD, **changes}).complexity

    assert of(rho=1.0) < of(rho=0.5) < of(rho=0.1)
    assert of(n=10**6) < of(n=10**5) < of(n=10**4)
    assert of(norm=1.0) < of(norm=10.0)


def test_arrays_of_one_number_are_taken():
    terms = asam_jax.generalization_bound_terms(
        **{**GOOD, "loss": jnp.float32(0.1), "norm": jnp.float32(3.0), "n": np.int64(50_000)}
    )
    assert all(isinstance(term, float) for term in terms)


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("loss", math.nan, ValueError),
        ("sharpness", math.inf, ValueError),
        ("norm", -1.0, ValueError),
        ("k", 0, ValueError),
        ("k", 1.5, ValueError),
        ("n", 1, ValueError),
        ("rho", 0.0, ValueError),
        ("eta", 0.0, ValueError),
        ("delta", 0.0, ValueError),
        ("delta", 1.0, ValueError),
        ("rho", "0.5", TypeError),
    ],
)
def test_numbers_out_of_range_are_named(name, value, error):
    with pytest.raises(error, match=f"^{name} must be"):
        asam_jax.generalization_bound_terms(**{**GOOD, name: value})
