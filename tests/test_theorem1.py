"""Theorem 1: rescalings that leave the network's function alone leave adaptive sharpness alone.

With eta = 0, in float64, to 1e-8; plain sharpness moves.
"""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import asam_jax

ALL = asam_jax.elementwise(0.0, adapt=asam_jax.all_leaves)
FILTERS = asam_jax.filterwise(0.0, adapt=asam_jax.all_leaves)
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(12, 4)), RNG.normal(size=(12, 2))
IMAGES = RNG.normal(size=(4, 5, 5, 2))
HIDDEN = (5, 3)
exponents = st.lists(st.floats(-1.5, 1.5), min_size=8, max_size=8)


def relu_net():
    """Two hidden layers; a positive factor on a hidden unit's inputs leaves by its outputs."""
    rng = np.random.default_rng(1)
    sizes = (4, *HIDDEN, 2)
    return {
        f"dense{i}": {"kernel": rng.normal(size=(a, b)), "bias": 0.3 * rng.normal(size=b)}
        for i, (a, b) in enumerate(itertools.pairwise(sizes))
    }


def relu_loss(w, batch):
    x, y = batch
    for i in range(3):
        x = x @ w[f"dense{i}"]["kernel"] + w[f"dense{i}"]["bias"][None]
        x = jax.nn.relu(x) if i < 2 else x
    return jnp.mean(jnp.square(x - y))


def rescale_units(w, factors):
    incoming = (np.ones(4), factors[:5], factors[5:], np.ones(2))
    return {
        name: {
            "kernel": layer["kernel"] * after / before[:, None],
            "bias": layer["bias"] * after,
        }
        for (name, layer), before, after in zip(w.items(), incoming, incoming[1:], strict=False)
    }


def conv_net():
    """Two convolutions without bias, each before a BatchNorm (without its epsilon)."""
    rng = np.random.default_rng(2)
    return {
        "conv0": {"kernel": rng.normal(size=(2, 2, 2, 5))},
        "norm0": {"scale": 1 + 0.3 * rng.normal(size=5), "bias": 0.3 * rng.normal(size=5)},
        "conv1": {"kernel": rng.normal(size=(2, 2, 5, 3))},
        "norm1": {"scale": 1 + 0.3 * rng.normal(size=3), "bias": 0.3 * rng.normal(size=3)},
    }


def conv_loss(w, batch):
    x = batch
    for i in range(2):
        x = jax.lax.conv_general_dilated(
            x, w[f"conv{i}"]["kernel"], (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        mean = jnp.mean(x, (0, 1, 2), keepdims=True)
        normal = (x - mean) / jnp.std(x, (0, 1, 2), keepdims=True)
        scale, bias = w[f"norm{i}"]["scale"], w[f"norm{i}"]["bias"]
        x = jnp.tanh(normal * scale[None, None, None] + bias[None, None, None])
    return jnp.mean(jnp.square(jnp.mean(x, (1, 2)) - 0.3))


def rescale_filters(w, factors):
    return {
        **w,
        "conv0": {"kernel": w["conv0"]["kernel"] * factors[:5]},
        "conv1": {"kernel": w["conv1"]["kernel"] * factors[5:]},
    }


NETS = {
    "relu": (relu_loss, relu_net(), (X, Y), rescale_units),
    "conv": (conv_loss, conv_net(), IMAGES, rescale_filters),
}
CASES = [("relu", ALL), ("conv", FILTERS)]


@functools.cache
def compiled(net, operator):
    """The loss, and every measure built on T_w, compiled once; one step's are those of groups."""
    loss = NETS[net][0]
    shared = {"rho": 0.2, "operator": operator}
    found = {"loss": jax.jit(loss)}
    found |= {f"p={p}": asam_jax.sharpness(loss, p=p, steps=3, **shared) for p in (2, math.inf)}
    found["groups"] = asam_jax.sharpness(loss, m=2, **shared)
    average = asam_jax.average_sharpness(loss, sigma=0.1, samples=4, operator=operator)
    found["average"] = lambda w, batch: average(w, batch, jax.random.key(3))
    return found


def measures(net, operator, w):
    batch = NETS[net][2]
    return {name: float(f(w, batch)) for name, f in compiled(net, operator).items()}


@pytest.mark.parametrize(("net", "operator"), CASES, ids=["relu", "conv"])
@settings(max_examples=10)
@given(log_factors=exponents)
def test_adaptive_sharpness_is_invariant(net, operator, log_factors):
    _, w, _, rescale = NETS[net]
    other = rescale(w, np.exp(log_factors))
    with jax.enable_x64(True):
        expected = measures(net, operator, w)
        assert measures(net, operator, other) == pytest.approx(expected, rel=1e-8)
        assert min(abs(value) for value in expected.values()) > 1e-5


SOME = asam_jax.elementwise(0.1, adapt=asam_jax.all_leaves)
VARY = [("relu", asam_jax.identity()), ("conv", asam_jax.identity())]
VARY += [("relu", SOME), ("relu", asam_jax.elementwise(adapt=asam_jax.not_bias))]


@pytest.mark.parametrize(("net", "operator"), VARY, ids=["relu", "conv", "eta", "unscaled bias"])
def test_plain_sharpness_a_positive_eta_and_an_unscaled_bias_are_not(net, operator, x64):
    loss, w, batch, rescale = NETS[net]
    other = rescale(w, np.exp(np.linspace(-1, 1, 8)))
    sharpness = asam_jax.sharpness(loss, rho=0.2, operator=operator)
    assert abs(sharpness(other, batch) / sharpness(w, batch) - 1) > 1e-3
