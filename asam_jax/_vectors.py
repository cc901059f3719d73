"""Inner products and norms over whole trees, safe from overflow and underflow."""

import functools
import operator as op

import jax
import jax.numpy as jnp

from asam_jax._checks import PyTree
from asam_jax._dtypes import wide, widest


def _total(tree: PyTree) -> jax.Array:
    """The sum of all entries, in the widest of the leaves' dtypes."""
    leaves = jax.tree.leaves(tree)
    dtype = widest(leaf.dtype for leaf in leaves)
    return sum((jnp.sum(leaf).astype(dtype) for leaf in leaves), jnp.zeros((), dtype))


def widened(tree: PyTree) -> PyTree:
    """The tree in the dtypes to compute in."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf).astype(wide(leaf)), tree)


def norm_and_unit(tree: PyTree) -> tuple[jax.Array, PyTree]:
    """||v||_2 over all leaves, and v / ||v||_2; a zero v has the unit 0. NaN comes out."""
    tree = widened(tree)
    leaves = jax.tree.leaves(tree)
    dtype = widest(leaf.dtype for leaf in leaves)
    peaks = [jnp.max(jnp.abs(leaf), initial=0.0).astype(dtype) for leaf in leaves]
    peak = functools.reduce(jnp.maximum, peaks, jnp.zeros((), dtype))
    divisor = jnp.where(peak == 0, jnp.ones_like(peak), peak)
    scaled = jax.tree.map(lambda leaf: leaf / divisor.astype(leaf.dtype), tree)
    size = jnp.sqrt(_total(jax.tree.map(jnp.square, scaled)))
    safe = jnp.where(size == 0, jnp.ones_like(size), size)
    return peak * size, jax.tree.map(lambda leaf: leaf / safe.astype(leaf.dtype), scaled)


def orthogonal(vector: PyTree, unit: PyTree) -> PyTree:
    """What is left of a vector without its part along a unit vector: v - <v, u> u."""
    vector = widened(vector)
    along = _total(jax.tree.map(op.mul, vector, unit))
    return jax.tree.map(lambda v, u: v - along.astype(u.dtype) * u, vector, unit)


def plus(tree: PyTree, factor: jax.typing.ArrayLike, other: PyTree) -> PyTree:
    """Adds factor * other to tree, rounded to the dtypes of `tree`."""
    factor = jnp.asarray(factor)

    def add(leaf: jax.Array, more: jax.Array) -> jax.Array:
        dtype = wide(leaf)
        total = leaf.astype(dtype) + factor.astype(dtype) * more.astype(dtype)
        return total.astype(leaf.dtype)

    return jax.tree.map(add, tree, other)
