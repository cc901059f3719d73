"""What a step costs on a convolutional network, as XLA counts it: two gradients, nothing kept."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest

import asam_jax

WIDTHS = (3, 16, 16, 32, 32)
BATCH = jnp.zeros((64, 16, 16, 3)), jnp.zeros(64, jnp.int32)
PARAMS = {
    f"conv{i}": {"kernel": jnp.zeros((3, 3, a, b)), "scale": jnp.zeros(b), "bias": jnp.zeros(b)}
    for i, (a, b) in enumerate(itertools.pairwise(WIDTHS))
} | {"head": {"kernel": jnp.zeros((WIDTHS[-1], 10)), "bias": jnp.zeros(10)}}
BASE = optax.chain(optax.add_decayed_weights(5e-4), optax.sgd(0.1, 0.9))


def loss(params, x, labels):
    """Convolutions, each with a BatchNorm."""
    for i in range(len(WIDTHS) - 1):
        layer = params[f"conv{i}"]
        x = jax.lax.conv_general_dilated(
            x, layer["kernel"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        mean, variance = jnp.mean(x, (0, 1, 2)), jnp.var(x, (0, 1, 2))
        x = (x - mean) * jax.lax.rsqrt(variance + 1e-5) * layer["scale"] + layer["bias"]
        x = jax.nn.relu(x)
    logits = jnp.mean(x, (1, 2)) @ params["head"]["kernel"] + params["head"]["bias"]
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))


TRANSFORMATIONS = {
    "SGD": optax.with_extra_args_support(BASE),
    "ASAM": asam_jax.asam(BASE, 0.5),
    "filter-wise": asam_jax.asam(BASE, 0.5, operator=asam_jax.filterwise()),
}


@pytest.fixture(scope="module")
def programs():
    """The training steps, compiled with donation and never run."""

    def program(tx):
        def step(params, state, *batch):
            grad_fn = lambda w: jax.grad(loss)(w, *batch)  # noqa: E731
            updates, state = tx.update(grad_fn(params), state, params, grad_fn=grad_fn)
            return optax.apply_updates(params, updates), state

        donating = jax.jit(step, donate_argnums=(0, 1))
        return donating.lower(PARAMS, tx.init(PARAMS), *BATCH).compile()

    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        return {name: program(tx) for name, tx in TRANSFORMATIONS.items()}


@pytest.mark.parametrize("name", ["ASAM", "filter-wise"])
def test_two_gradients_and_nothing_else(programs, name):
    flops = {n: programs[n].cost_analysis()["flops"] for n in ("SGD", name)}
    assert 1.95 < flops[name] / flops["SGD"] <= 2.01


def test_one_step_sharpness_is_a_gradient_and_a_forward_pass():
    one = lambda params, batch: loss(params, *batch)  # noqa: E731
    functions = (asam_jax.sharpness(one, rho=0.5), jax.value_and_grad(one), one)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        lowered = [jax.jit(function).lower(PARAMS, BATCH) for function in functions]
    costs: list[Any] = [each.compile().cost_analysis() for each in lowered]
    measure, gradient, forward = (cost["flops"] for cost in costs)
    assert measure < 1.01 * (gradient + forward)


@pytest.mark.parametrize("name", ["ASAM", "filter-wise"])
def test_temporary_memory_is_that_of_one_gradient(programs, name):
    memory = {n: programs[n].memory_analysis().temp_size_in_bytes for n in ("SGD", name)}
    assert memory[name] <= 1.10 * memory["SGD"]
