"""One number from many leaves, by a program that grows linearly with their count.

XLA rewrites a reduction of a concatenation of scalars into a chain of binary operations, finds
each of them cheap, and copies the whole chain into the fusion of every leaf that reads its end:
a program of the square of the leaf count. An optimization barrier does not help, since it is gone
before fusion. A sort is never fused, so that what follows it stays one reduction over one array.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp


def _sorted(numbers: Sequence[jax.Array], dtype: Any) -> jax.Array:
    return jnp.sort(jnp.stack([number.astype(dtype) for number in numbers]))


def largest(numbers: Sequence[jax.Array], dtype: Any) -> jax.Array:
    """The largest of at least one scalar, exactly; NaN if one is."""
    return _sorted(numbers, dtype)[-1]  # a sort puts NaN last


def total(numbers: Sequence[jax.Array], dtype: Any) -> jax.Array:
    """The sum of scalars; 0 of none."""
    return jnp.sum(_sorted(numbers, dtype)) if numbers else jnp.zeros((), dtype)


def every(flags: Sequence[jax.Array]) -> jax.Array:
    """Whether all of some booleans hold; of none, true."""
    return _sorted(flags, jnp.uint8)[0] > 0 if flags else jnp.ones([], jnp.bool_)


def power_of_two(number: jax.Array) -> jax.Array:
    """A power of two from `number` (of at least 0) to twice that, to scale by without rounding.

    It has no derivative: what is scaled by it does not depend on it. Not finite where `number` is
    not; at least and at most what has a normal inverse; 1 for 0.
    """
    number = jax.lax.stop_gradient(number)
    _, exponent = jnp.frexp(jnp.where(jnp.isfinite(number), number, 0))
    limit = jnp.finfo(number.dtype).maxexp - 2
    power = jnp.ldexp(jnp.ones_like(number), jnp.clip(exponent, -limit, limit))
    return jnp.where(jnp.isfinite(number), power, number)


def safe_sqrt(number: jax.Array) -> jax.Array:
    """The root of numbers of at least 0; at 0, where its derivative is infinite, that is 0."""
    zero = number == 0
    return jnp.where(zero, jnp.zeros_like(number), jnp.sqrt(jnp.where(zero, 1, number)))


def inverse(size: jax.Array) -> jax.Array:
    """1 / size, 0 where that is 0, and NaN where it is not finite."""
    zero = size == 0
    result = jnp.where(zero, jnp.zeros_like(size), 1 / jnp.where(zero, jnp.ones_like(size), size))
    return jnp.where(jnp.isfinite(size), result, jnp.nan)
