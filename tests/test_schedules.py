"""Schedules of rho: what is known of them before training, and what happens below zero."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import asam_jax

A, W = np.float32([1.0, 2.0, 0.5]), np.float32([3.0, -2.0, 1.0])


def grad_fn(w):
    """Of sum(a w^2) / 2."""
    return A * w


MAKERS = [asam_jax.sharpness_aware, functools.partial(asam_jax.alternating, optax.sgd(0.1))]


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize(
    ("schedule", "count"),
    [
        (lambda count: count.astype(jnp.float32) - 0.5, 0),
        (optax.constant_schedule(-0.5), 0),
        (optax.linear_schedule(0.5, -0.5, 10), 2**31 - 1),
        (
            optax.join_schedules(
                [optax.constant_schedule(0.5), optax.linear_schedule(0.5, -0.5, 9)], [3]
            ),
            2**31 - 1,
        ),
    ],
)
def test_a_schedule_that_is_known_to_be_negative(make, schedule, count):
    tx = make(schedule)
    message = f"rho must be at least 0, but its schedule gives -0.5 at count {count}.*jnp.maximum"
    for init in (tx.init, jax.jit(tx.init)):
        with pytest.raises(ValueError, match=message):
            init(W)


@pytest.mark.parametrize("make", MAKERS)
def test_schedules_of_which_nothing_is_known_before_training(make):
    """Of a mapped axis, of traced values; one that counts its way; one that grows past floats."""
    counts = []

    def counting(count):
        counts.append(int(count))
        return 0.5

    def of_axis(count):
        return 0.1 * jax.lax.axis_index("devices") + count

    joined = optax.join_schedules([optax.constant_schedule(0.5), counting], [7])
    for schedule in (counting, of_axis, joined, optax.exponential_decay(0.0, 10, 2.0)):
        make(schedule).init(W)
    assert max(counts) == 0
    jax.jit(lambda rho: make(lambda count: rho).init(W))(-0.5)
    falling = optax.linear_schedule(0.5, -0.5, 10)
    make(lambda count: jnp.maximum(falling(count), 0.0)).init(W)


def test_a_negative_radius_while_running_points_downhill():
    """Nothing is clamped: eps = rho g / ||g|| to the letter."""
    schedule = lambda count: 0.5 - count.astype(jnp.float32)  # noqa: E731
    tx = asam_jax.sharpness_aware(schedule, operator=asam_jax.identity())
    step = jax.jit(lambda state: tx.update(grad_fn(W), state, W, grad_fn=grad_fn))
    _, state = step(tx.init(W))
    updates, _ = step(state)
    g = A * W
    np.testing.assert_allclose(updates, A * (W - 0.5 * g / np.linalg.norm(g)), rtol=1e-6)
