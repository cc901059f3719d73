"""Perturbs along the last direction for as long as it still points where it should.

    cosine = cos(eps of the gradient at w + eps, eps of the reused direction)

Both are perturbations through T_w. Where the cosine of the step before fell below a threshold, a
step takes a fresh gradient at w first; else it costs one gradient. How many did is known
only afterwards, so they are counted.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax


class ReusedDirection(NamedTuple):
    """What is remembered; `cosine` starts so that the first step perturbs."""

    direction: Any
    cosine: jax.Array
    ascents: jax.Array


def init(params: Any) -> ReusedDirection:
    """No step taken yet."""
    return ReusedDirection(optax.tree.zeros_like(params), jnp.float32(-2.0), jnp.int32(0))


def perturbs(state: ReusedDirection, threshold: jax.Array) -> jax.Array:
    """Whether the next step takes a fresh direction."""
    return state.cosine < threshold


def gradient(
    state: ReusedDirection,
    params: Any,
    loss_fn: Callable[[Any], tuple[jax.Array, Any]],
    eps_of: Callable[[Any], Any],
    perturb: bool | jax.Array,
) -> tuple[tuple[jax.Array, Any], Any, ReusedDirection]:
    """((loss, aux), gradient, state), all at w + eps."""

    def fresh():
        return jax.grad(loss_fn, has_aux=True)(params)[0]

    def reused():
        return state.direction

    if isinstance(perturb, bool):
        direction = fresh() if perturb else reused()
    else:
        direction = jax.lax.cond(perturb, fresh, reused)
    eps = eps_of(direction)
    at = jax.tree.map(jnp.add, params, eps)
    result, grads = jax.value_and_grad(loss_fn, has_aux=True)(at)
    cosine = _cosine(eps_of(grads), eps)
    return result, grads, ReusedDirection(direction, cosine, state.ascents + jnp.int32(perturb))


def gradients_per_step(state: Any, steps: Any) -> Any:
    """What a step cost so far, on average; None for another variant's memory."""
    return 1 + state.ascents / steps if isinstance(state, ReusedDirection) else None


def _cosine(a: Any, b: Any) -> jax.Array:
    lengths = optax.tree.norm(a) * optax.tree.norm(b)
    return jnp.asarray(optax.tree.vdot(a, b)) / jnp.maximum(lengths, jnp.finfo(jnp.float32).tiny)
