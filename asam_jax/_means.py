"""Means over groups, draws and pieces, one at a time."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from asam_jax._checks import PyTree

# The sum of a leaf, and for a scalar what rounding has kept out of it.
_Sum = tuple[jax.Array, jax.Array]


def _plus(total: jax.Array, lost: jax.Array, term: jax.Array) -> _Sum:
    new = total + term
    if new.ndim:
        return new, lost
    arrived = new - total
    return new, lost + ((total - (new - arrived)) + (term - arrived))


@jax.jit
def _add(sums: list[_Sum], terms: list[jax.Array]) -> list[_Sum]:
    return [_plus(*pair, term) for pair, term in zip(sums, terms, strict=True)]


@functools.partial(jax.jit, static_argnames="count")
def _divided(sums: list[_Sum], count: int) -> list[jax.Array]:
    # Beside an infinite sum, what was lost is NaN.
    return [
        (total if total.ndim else jnp.where(jnp.isfinite(total), total + lost, total)) / count
        for total, lost in sums
    ]


def mean_and_each(
    count: int, function: Callable[[Any], tuple[PyTree, Any]], *, roll: bool
) -> tuple[PyTree, Any]:
    """For function(i), i < count, a tree and an array: the mean of the first, all of the second.

    The tree's scalars are summed as if in twice the precision, so that thousands of small numbers
    of both signs lose nothing. The arrays come as a sequence, or stacked where `roll` makes the
    loop one of the program.
    """
    if count == 1:
        mean, kept = function(0)
        return mean, (kept,)
    first, kept = jax.eval_shape(function, 0) if roll else function(0)
    leaves, treedef = jax.tree.flatten(first)

    def add(sums: list[_Sum], index: Any) -> tuple[list[_Sum], Any]:
        tree, kept = function(index)
        return _add(sums, jax.tree.leaves(tree)), kept

    if roll:
        zeros = [(jnp.zeros(s.shape, s.dtype), jnp.zeros((), s.dtype)) for s in leaves]
        sums, each = jax.lax.scan(add, zeros, jnp.arange(count))
    else:
        sums, each = [(leaf, jnp.zeros((), leaf.dtype)) for leaf in leaves], [kept]
        for index in range(1, count):
            sums, kept = add(sums, index)
            each.append(kept)
    return jax.tree.unflatten(treedef, _divided(sums, count)), each


def mean_over(count: int, function: Callable[[Any], PyTree], *, roll: bool) -> PyTree:
    """The mean of function(0), ..., function(count - 1), each a tree of floating-point arrays."""
    return mean_and_each(count, lambda i: (function(i), None), roll=roll)[0]
