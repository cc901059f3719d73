"""The transformations that tests/test_contract.py is run over, and a small problem for them."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import asam_jax

W = {"kernel": np.array([[1.0, -2.0], [0.5, 3.0]], np.float32), "bias": np.float32([0.3, -0.1])}


def loss(params, x):
    return jnp.mean(jnp.square(jnp.tanh(x @ params["kernel"] + params["bias"][None])))


def batch(seed, n=6):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(n, 2)), jnp.float32)


def gradient(x):
    return lambda params: jax.grad(loss)(params, x.astype(params["kernel"].dtype))


FACTORIES = {
    "asam": lambda base, rho=0.5: asam_jax.asam(base, rho),
    "sam": lambda base, rho=0.05: asam_jax.sam(base, rho),
    "p_inf": lambda base, rho=0.01: asam_jax.asam(base, rho, p=jnp.inf),
    "filterwise": lambda base, rho=0.5: optax.chain(
        asam_jax.sharpness_aware(rho, operator=asam_jax.filterwise()), base
    ),
    "LookSAM": lambda base, rho=0.5: optax.chain(
        asam_jax.sharpness_aware(rho, every=2, descent=asam_jax.looksam_descent(0.0)), base
    ),
    "friendly and gsam": lambda base, rho=0.5: optax.chain(
        asam_jax.sharpness_aware(
            rho, ascent=asam_jax.friendly_ascent(), descent=asam_jax.gsam_descent(0.1)
        ),
        base,
    ),
    "stable": lambda base, rho=0.5: optax.chain(
        asam_jax.sharpness_aware(rho, descent=asam_jax.stable_descent()), base
    ),
}


EXACT = ["asam", "sam", "p_inf", "filterwise"]
WRAPPERS = {
    "decoupled WSAM": lambda base, rho=0.5: asam_jax.decoupled_wsam(base, 0.01, rho, gamma=0.6)
}
ALL = {**FACTORIES, **WRAPPERS}


def run(tx, steps=3, params=None, **extra) -> tuple[Any, Any]:
    params = jax.tree.map(jnp.asarray, W if params is None else params)
    state = tx.init(params)
    for seed in range(steps):
        f = gradient(batch(seed))
        updates, state = tx.update(f(params), state, params, grad_fn=f, **extra)
        params = optax.apply_updates(params, updates)
    return params, state
