"""Inner products and norms over whole trees, safe from overflow and underflow."""

import operator as op

import jax
import jax.numpy as jnp

from asam_jax._checks import PyTree
from asam_jax._dtypes import wide, widest
from asam_jax._reductions import largest, power_of_two, safe_sqrt, total


def _sum(tree: PyTree) -> jax.Array:
    """The sum of all entries, in the widest of the leaves' dtypes."""
    leaves = jax.tree.leaves(tree)
    return total([jnp.sum(leaf) for leaf in leaves], widest(leaf.dtype for leaf in leaves))


def widened(tree: PyTree) -> PyTree:
    """The tree in the dtypes to compute in."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf).astype(wide(leaf)), tree)


def norm_and_unit(tree: PyTree) -> tuple[jax.Array, PyTree]:
    """||v||_2 over all leaves, and v / ||v||_2; a zero v has the unit 0. NaN comes out."""
    tree = widened(tree)
    leaves = jax.tree.leaves(tree)
    dtype = widest(leaf.dtype for leaf in leaves)
    peaks = [jnp.max(jnp.abs(leaf), initial=0.0) for leaf in leaves]
    scale = power_of_two(largest([*peaks, jnp.zeros((), dtype)], dtype))
    scaled = jax.tree.map(lambda leaf: leaf / scale.astype(leaf.dtype), tree)
    size = safe_sqrt(_sum(jax.tree.map(jnp.square, scaled)))
    inverse = 1 / jnp.where(size == 0, 1, size)
    return scale * size, jax.tree.map(lambda leaf: leaf * inverse.astype(leaf.dtype), scaled)


def orthogonal(vector: PyTree, unit: PyTree) -> PyTree:
    """What is left of a vector without its part along a unit vector: v - <v, u> u."""
    vector = widened(vector)
    along = _sum(jax.tree.map(op.mul, vector, unit))
    return jax.tree.map(lambda v, u: v - along.astype(u.dtype) * u, vector, unit)


def plus(tree: PyTree, factor: jax.typing.ArrayLike, other: PyTree) -> PyTree:
    """Adds factor * other to tree, rounded to the dtypes of `tree`."""
    factor = jnp.asarray(factor)

    def add(leaf: jax.Array, more: jax.Array) -> jax.Array:
        dtype = wide(leaf)
        total = leaf.astype(dtype) + factor.astype(dtype) * more.astype(dtype)
        return total.astype(leaf.dtype)

    return jax.tree.map(add, tree, other)
