"""Theorem 1: rescaled hidden ReLU units move plain sharpness, not the loss nor the adaptive one."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import asam_jax

X = np.random.default_rng(0).normal(size=(8, 3))


def loss(w, x):
    return jnp.mean((jnp.maximum(x @ w["first"], 0) @ w["second"] - 1) ** 2)


@pytest.mark.parametrize("p", [2.0, math.inf])
@pytest.mark.parametrize("steps", [1, 4])
@settings(max_examples=10)
@given(seed=st.integers(0, 1000), factors=st.lists(st.floats(0.1, 10), min_size=4, max_size=4))
def test_rescaled_units(p, steps, seed, factors):
    with jax.enable_x64(True):
        rng = np.random.default_rng(seed)
        a = np.array(factors)
        w = {"first": rng.normal(size=(3, 4)), "second": rng.normal(size=(4,))}
        scaled = {"first": w["first"] * a[None], "second": w["second"] / a}
        np.testing.assert_allclose(loss(scaled, X), loss(w, X), rtol=1e-12)

        def measure(w, operator):
            return float(
                asam_jax.sharpness(loss, w, X, rho=0.1, operator=operator, p=p, steps=steps)
            )

        adaptive = asam_jax.elementwise(0.0)
        np.testing.assert_allclose(measure(scaled, adaptive), measure(w, adaptive), rtol=1e-8)


def test_plain_sharpness_moves(x64):
    rng = np.random.default_rng(0)
    w = {"first": rng.normal(size=(3, 4)), "second": rng.normal(size=(4,))}
    scaled = {"first": 5 * w["first"], "second": w["second"] / 5}
    plain = [
        float(asam_jax.sharpness(loss, v, X, rho=0.1, operator=asam_jax.identity()))
        for v in (w, scaled)
    ]
    assert abs(plain[0] - plain[1]) > 0.1 * abs(plain[0])
