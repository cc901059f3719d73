"""Sums, norms and inner products over whole trees, safe from overflow and underflow."""

import functools
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from asam_jax._collectives import Axes, varying_axes
from asam_jax.typing import PyTree, Scalar

# A 2-norm is made from a sum of fourth powers of sqrt(T |g|), divided by one of these scales: 2^50
# apart, at least one neither overflows nor loses what counts, of up to 2^27 entries in float32.
_SCALES = (2.0**-100, 2.0**-50, 1.0, 2.0**50, 2.0**100)


def wide(*leaves: Any) -> Any:
    """The dtype in which scales and norms of leaves are computed: float32, or a wider one's."""
    dtypes = [jnp.dtype(jnp.float32), *map(jnp.result_type, leaves)]
    return max(dtypes, key=lambda dtype: jnp.finfo(dtype).bits)


def widened(tree: PyTree) -> PyTree:
    """The tree in the dtypes to compute in."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf).astype(wide(leaf)), tree)


def _over_axes(
    parts: Sequence[jax.Array],
    axes: Axes,
    here: Callable[[list[int]], jax.Array],
    across: Callable[[jax.Array, Axes], jax.Array],
) -> list[jax.Array]:
    """here() of the indices of parts that vary over the same of the axes, and across() those."""
    groups = defaultdict(list)
    for index, part in enumerate(parts):
        varies = varying_axes(part)
        groups[tuple(axis for axis in axes if axis in varies)].append(index)
    found = ((over, here(group)) for over, group in groups.items())
    return [across(value, over) if over else value for over, value in found]


def _matrix(scalars: Sequence[jax.Array], rows: int) -> jax.Array:
    """Scalars as a matrix of so many rows, at least two.

    XLA turns a reduction of stacked scalars, but not of a matrix, into a chain of operations and
    copies it into the fusion of every leaf that reads its end: a program of their square.
    """
    dtype = wide(*scalars)
    return jnp.stack([scalar.astype(dtype) for scalar in scalars]).reshape(rows, -1)


def total(parts: Sequence[jax.Array], axes: Axes = ()) -> jax.Array:
    """The sum of scalars, and over those of the mapped axes that each varies over."""
    here = lambda group: jnp.sum(_matrix([parts[i] for i in group] * 2, 2), axis=1)[0]  # noqa: E731
    sums = _over_axes(parts, axes, here, jax.lax.psum)
    return functools.reduce(jnp.add, sums) if sums else jnp.zeros(())


def largest(parts: Sequence[jax.Array], axes: Axes = ()) -> jax.Array:
    """The largest of scalars, also over mapped axes; NaN if one is NaN."""
    here = lambda group: jnp.max(_matrix([parts[i] for i in group] * 2, 2), axis=1)[0]  # noqa: E731
    return functools.reduce(jnp.maximum, _over_axes(parts, axes, here, jax.lax.pmax))


def root(t: jax.Array, g: jax.Array) -> jax.Array:
    """sqrt(T |g|), which neither overflows nor underflows where T |g| does."""
    return jnp.sqrt(t) * jnp.sqrt(jnp.abs(g))


def capped(t: jax.Array, factor: jax.Array) -> jax.Array:
    """T times a factor. It overflows only where g = 0, and there any finite number will do."""
    return jnp.minimum(t * factor.astype(t.dtype), jnp.finfo(t.dtype).max)


def _padded_root(t: jax.Array, g: jax.Array) -> jax.Array:
    if g.size == 1:  # XLA would take the scale out of the power of a scalar, as 0 or inf
        t, g = (jnp.pad(a.reshape(-1), (0, 1)) for a in (t, g))
    return root(t, g)


@jax.jit
def _sums_apart(t: jax.Array, g: jax.Array) -> list[jax.Array]:
    x = _padded_root(t, g)
    inverses = [jnp.asarray(1 / scale, x.dtype) for scale in _SCALES]
    return [jnp.sum(jnp.square(jnp.square(x * inverse))) for inverse in inverses]


@jax.jit
def _sums_in_rows(t: jax.Array, g: jax.Array) -> jax.Array:
    x = _padded_root(t, g)[None]
    inverses = jnp.asarray([1 / scale for scale in _SCALES], x.dtype)
    scaled = x * inverses.reshape((-1,) + (1,) * (x.ndim - 1))
    return jnp.sum(jnp.square(jnp.square(scaled)), axis=range(1, x.ndim))


def _sums(ts: list[jax.Array], gs: list[jax.Array]) -> jax.Array:
    """Sums of (sqrt(T |g|) / scale)^4 over all leaves, for each of the scales.

    A TPU's compiler fuses sums with the product that makes g, if each is a sum of its own; a GPU's
    and a CPU's make one kernel of them, if they are the rows of one sum.
    """

    def apart(ts: list[jax.Array], gs: list[jax.Array]) -> jax.Array:
        columns = zip(*map(_sums_apart, ts, gs), strict=True)
        return jnp.sum(_matrix([x for column in columns for x in column], len(_SCALES)), axis=1)

    def in_rows(ts: list[jax.Array], gs: list[jax.Array]) -> jax.Array:
        rows = list(map(_sums_in_rows, ts, gs))
        dtype = wide(*rows)
        joined = jnp.concatenate([row.astype(dtype) for row in rows])
        return jnp.sum(joined.reshape(-1, len(_SCALES)), axis=0)

    return jax.lax.platform_dependent(ts, gs, tpu=apart, default=in_rows)


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def inverse_root_of_norm(ts: list[jax.Array], gs: list[jax.Array], axes: Axes) -> jax.Array:
    """1 / sqrt(||T g||_2) over all leaves, in one pass; 0 for a zero g, NaN where g is not finite.

    The largest of the sums that is finite has lost nothing (after Blue, 1978). The root, since
    ||T g|| can overflow where no eps does. It ends in a reduction: XLA copies scalar operations
    into the fusion of every leaf that reads their result.
    """
    here = lambda group: _sums([ts[i] for i in group], [gs[i] for i in group])  # noqa: E731
    sums = _over_axes(gs, axes, here, jax.lax.psum) or [jnp.zeros(len(_SCALES))]
    whole = functools.reduce(jnp.add, sums)
    roots = jnp.sqrt(jnp.sqrt(whole)) * jnp.asarray(_SCALES, whole.dtype)
    number = jnp.arange(len(_SCALES))
    inverses = jnp.where(whole == 0, jnp.where(number == 0, 0.0, jnp.inf), 1 / roots)
    inverses = jnp.where(jnp.isfinite(whole), inverses, jnp.inf)
    # NaN where even the last sum is not finite; as a constant it would alarm jax_debug_nans.
    last = jnp.where(number == len(_SCALES) - 1, whole, 0.0)
    return jnp.min(inverses + (last - last))


@inverse_root_of_norm.defjvp
def _inverse_root_of_norm_jvp(axes: Axes, primals: Any, tangents: Any) -> Any:
    """With s = 1 / sqrt(||v||) and v = T g: ds = -s^5 <v, dv> / 2, and 0 for a zero g."""
    (ts, gs), (dts, dgs) = primals, tangents
    s = inverse_root_of_norm(ts, gs, axes)

    def part(t: jax.Array, g: jax.Array, dt: jax.Array, dg: jax.Array) -> jax.Array:
        own = s.astype(t.dtype)
        a = capped(t, own)
        b = own * a * g  # v / ||v||
        return jnp.sum(b * (own * a * dg) + b * (own * g) * (own * dt))

    parts = [part(*leaf) for leaf in zip(ts, gs, dts, dgs, strict=True)]
    return s, (-s / 2 * total(parts, axes)).astype(s.dtype)


def root_and_inverse(tree: PyTree, axes: Axes) -> tuple[jax.Array, jax.Array]:
    """sqrt(||v||_2) over all leaves and its inverse; 0 and 0 for a zero v."""
    leaves = jax.tree.leaves(widened(tree))
    s = inverse_root_of_norm([jnp.ones((), leaf.dtype) for leaf in leaves], leaves, axes)
    return jnp.where(s == 0, s, 1 / jnp.where(s == 0, jnp.ones_like(s), s)), s


def twice(factor: jax.Array, tree: PyTree) -> PyTree:
    """factor^2 v, where factor^2 alone may overflow; in the dtype to compute in."""
    return jax.tree.map(
        lambda v: v * factor.astype(v.dtype) * factor.astype(v.dtype), widened(tree)
    )


def orthogonal(vector: PyTree, other: PyTree, axes: Axes) -> PyTree:
    """What is left of a vector without its part along another: v - <v, u> u, u = o / ||o||_2.

    The unit vector stays within sums: no array of it, nor of what is subtracted, is made.
    """
    _, s = root_and_inverse(other, axes)
    products = jax.tree.map(lambda v, u: jnp.sum(v * u), widened(vector), twice(s, other))
    share = total(jax.tree.leaves(products), axes) * s * s
    return plus(widened(vector), -share, other)


def plus(tree: PyTree, factor: Scalar, other: PyTree) -> PyTree:
    """Adds factor * other to tree, rounded to the dtypes of `tree`."""
    factor = jnp.asarray(factor)

    def add(leaf: jax.Array, more: jax.Array) -> jax.Array:
        dtype = wide(leaf)
        return (leaf.astype(dtype) + factor.astype(dtype) * more.astype(dtype)).astype(leaf.dtype)

    return jax.tree.map(add, tree, other)


def all_finite(tree: PyTree, axes: Axes = ()) -> jax.Array:
    """Whether all entries are finite, on all devices of the axes that leaves vary over."""
    bad = jax.tree.map(lambda leaf: jnp.sum(~jnp.isfinite(leaf), dtype=jnp.float32), tree)
    return total(jax.tree.leaves(bad), axes) == 0


def if_finite(new: PyTree, old: PyTree, gradients: PyTree, axes: Axes = ()) -> PyTree:
    """The new state in the dtypes of the old, or the old one where a gradient is not finite."""
    if not jax.tree.leaves(new):
        return new
    finite = all_finite(gradients, axes)
    keep = lambda a, b: jnp.where(finite, jnp.asarray(a, jnp.result_type(b)), b)  # noqa: E731
    return jax.tree.map(keep, new, old)


def where(mask: PyTree | None, tree: PyTree, other: PyTree | None = None) -> PyTree:
    """Leaves of a tree where the mask is true (or None), elsewhere of another, or 0."""
    if mask is None:
        return tree

    def choose(flag: Any, a: Any, b: Any) -> Any:
        return (a if flag else b) if isinstance(flag, bool) else jnp.where(flag, a, b)

    other = jax.tree.map(jnp.zeros_like, tree) if other is None else other
    return jax.tree.map(choose, mask, tree, other)
