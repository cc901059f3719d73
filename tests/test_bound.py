"""The terms of Theorem 3 against the formula, evaluated another way."""

import math

import numpy as np
import pytest

from experiments.figures.bound import generalization_bound_terms

GOOD = {"loss": 0.1, "sharpness": 0.02, "norm": 3.0, "k": 10, "n": 50_000, "rho": 0.5}


@pytest.mark.parametrize("norm", [0.0, 1e-3, 40.0])
@pytest.mark.parametrize(("k", "n"), [(1, 2), (272_474, 50_000), (10, 10**9)])
@pytest.mark.parametrize(("rho", "eta", "delta"), [(0.5, 0.01, 0.05), (2.0, 0.1, 0.9)])
def test_terms_equal_the_closed_form(norm, k, n, rho, eta, delta):
    values = dict(loss=0.1, sharpness=0.02, norm=norm, k=k, n=n, rho=rho, eta=eta, delta=delta)
    terms = generalization_bound_terms(**values)
    spread = 1 + np.sqrt(np.log(n) / k)
    inside = 1 + (norm * spread) ** 2 / (eta * rho) ** 2
    nats = k * np.log2(inside) / np.log2(np.e) + 4 * (np.log(n) - np.log(delta))
    expected = np.sqrt(nats / (n - 1))
    assert terms.complexity == pytest.approx(expected, rel=1e-12)
    assert terms.max_loss == pytest.approx(0.12)
    assert terms.bound_without_constant == pytest.approx(0.12 + expected)
    assert terms.sigma * math.sqrt(k) * spread == pytest.approx(eta * rho)


BAD = {"loss": math.nan, "sharpness": math.inf, "norm": -1.0, "k": 0, "n": 1, "rho": 0.0}
BAD |= {"eta": 0.0, "delta": 1.0}


@pytest.mark.parametrize(("name", "value"), BAD.items())
def test_numbers_out_of_range_are_named(name, value):
    with pytest.raises(ValueError, match=f"^{name}="):
        generalization_bound_terms(**{**GOOD, name: value})
