"""Sums, norms and inner products over whole trees, safe from overflow and underflow."""

import functools
import operator
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from asam_jax._collectives import Axes, varying_axes
from asam_jax.typing import PyTree, Scalar

# 2-norms are sums of fourth powers of sqrt(T |g|), kept in five ranges of it, each of 2^50: within
# one, a sum of 2^27 of them neither overflows nor underflows in float32.
_RANGE = 50
_CENTERS = tuple(_RANGE * k for k in (-2, -1, 0, 1, 2))


def widest(dtypes: Iterable[Any]) -> Any:
    """The widest of some floating dtypes and float32 (also under strict promotion)."""
    return max([jnp.dtype(jnp.float32), *dtypes], key=lambda dtype: jnp.finfo(dtype).bits)


def wide(leaf: Any) -> Any:
    """The dtype in which scales and norms of a leaf are computed: float32, or its own if wider."""
    return widest([jnp.result_type(leaf)])


def widened(tree: PyTree) -> PyTree:
    """The tree in the dtypes to compute in."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf).astype(wide(leaf)), tree)


def _stacked(parts: Sequence[jax.Array], axes: Axes) -> dict[Axes, jax.Array]:
    """Parts of one shape along a new first axis, by those of the axes that they vary over."""
    dtype = widest(part.dtype for part in parts)
    groups = _members(parts, axes).items()
    return {over: jnp.stack([parts[i].astype(dtype) for i in group]) for over, group in groups}


def _members(parts: Sequence[jax.Array], axes: Axes) -> dict[Axes, list[int]]:
    """The indices of parts, by those of the axes that they vary over."""
    groups = defaultdict(list)
    for index, part in enumerate(parts):
        varies = varying_axes(part)
        groups[tuple(axis for axis in axes if axis in varies)].append(index)
    return groups


def total(
    parts: Sequence[jax.Array], axes: Axes = (), *, keys: Sequence[jax.Array] | None = None
) -> jax.Array:
    """The sum of arrays of one shape, and over those of the mapped axes that each varies over.

    XLA rewrites a reduction of stacked scalars into a chain of binary operations and copies the
    chain into the fusion of every leaf that reads its end: a program that grows with the square of
    the leaf count. It does not fuse a sort, which is by `keys` where the sum must be linear.
    """
    sums = []
    for over, group in _stacked(parts, axes).items():
        if keys is None:
            group = jnp.sort(group, axis=0)
        else:
            own = [keys[index] for index in _members(parts, axes)[over]]
            group = group[jnp.argsort(jnp.stack([key.astype(group.dtype) for key in own]))]
        part = jnp.sum(group, axis=0)
        sums.append(jax.lax.psum(part, over) if over else part)
    return functools.reduce(operator.add, sums)


def largest(parts: Sequence[jax.Array], axes: Axes = ()) -> jax.Array:
    """The largest of scalars of at least 0, also over mapped axes; NaN if one is NaN."""
    groups = _stacked(parts, axes).items()
    tops = {over: jnp.sort(group, axis=0)[-1] for over, group in groups}  # a sort puts NaN last
    return functools.reduce(
        jnp.maximum, [jax.lax.pmax(top, over) if over else top for over, top in tops.items()]
    )


def root(t: jax.Array, g: jax.Array) -> jax.Array:
    """sqrt(T |g|), which neither overflows nor underflows where T |g| does."""
    return jnp.sqrt(t) * jnp.sqrt(jnp.abs(g))


def capped(t: jax.Array, factor: jax.Array) -> jax.Array:
    """T times a factor. It overflows only where g = 0, and there any finite number will do."""
    return jnp.minimum(t * factor.astype(t.dtype), jnp.finfo(t.dtype).max)


def _powers(t: jax.Array, g: jax.Array) -> list[jax.Array]:
    """(sqrt(T |g|) / 2^center)^4 where that is in the range of the center, else 0; NaN stays.

    Each power is selected after it is taken. A power of what was selected, shared or not, is cut
    off from the sums by XLA's fusion: one more kernel for each leaf.
    """
    x = root(t, g)
    powers = []
    for center in _CENTERS:
        low, high = 2.0 ** (center - _RANGE / 2), 2.0 ** (center + _RANGE / 2)
        inside = (x >= low) & (x < high)
        if center == _CENTERS[0]:
            inside = x < high
        elif center == _CENTERS[-1]:
            inside = ~(x < low)
        power = jnp.square(jnp.square(x * jnp.asarray(2.0**-center, x.dtype)))
        powers.append(jnp.where(inside, power, jnp.zeros_like(power)))
    return powers


def _apart(t: jax.Array, g: jax.Array) -> tuple[jax.Array, ...]:
    return tuple(jnp.sum(power) for power in _powers(t, g))


def _at_once(t: jax.Array, g: jax.Array) -> tuple[jax.Array, ...]:
    powers = tuple(_powers(t, g))
    zeros = tuple(jnp.zeros((), power.dtype) for power in powers)
    add = lambda a, b: tuple(map(jnp.add, a, b))  # noqa: E731
    return tuple(jax.lax.reduce(powers, zeros, add, range(g.ndim)))


def _by_peak(t: jax.Array, g: jax.Array) -> tuple[jax.Array, ...]:
    """The range of the largest entry decides for all: beside it those of lower ranges vanish."""
    x = root(t, g)
    peak = jnp.max(x, initial=0.0)
    lows = [2.0 ** (center - _RANGE / 2) for center in _CENTERS[1:]]
    number = jnp.sum(peak >= jnp.asarray(lows, x.dtype))
    scale = jnp.asarray([2.0**-center for center in _CENTERS], x.dtype)[number]
    whole = jnp.sum(jnp.square(jnp.square(x * scale)))
    return tuple(jnp.where(number == k, whole, jnp.zeros_like(whole)) for k in range(len(_CENTERS)))


@jax.jit
def _sums(t: jax.Array, g: jax.Array) -> tuple[jax.Array, ...]:
    """The sums of `_powers`, as each compiler makes the least of them.

    A TPU's fuses sums with the product that makes g, but not a reduction of several operands. A
    GPU's takes two kernels for the sum of a matrix, and two for a reduction of several operands. A
    CPU's puts each power into memory for either; there two passes take a tenth of the time.
    """
    return jax.lax.platform_dependent(
        t, g, tpu=_apart, cuda=_at_once, rocm=_at_once, default=_by_peak
    )


def _totals(each: Sequence[tuple[jax.Array, ...]], axes: Axes) -> jax.Array:
    """Sums over leaves of as many scalars each, and over the axes that a leaf's vary over.

    All scalars are stacked at once. XLA does not look through the reshape for what it makes of a
    sum of stacked scalars: see `total`.
    """
    groups = defaultdict(list)
    dtype = widest(scalars[0].dtype for scalars in each)
    for scalars in each:
        varies = varying_axes(scalars[0])
        groups[tuple(axis for axis in axes if axis in varies)].append(scalars)
    result = jnp.zeros((), dtype)
    for over, group in groups.items():
        flat = [scalar.astype(dtype) for column in zip(*group, strict=True) for scalar in column]
        sums = jnp.sum(jnp.stack(flat).reshape(-1, len(group)), axis=1)
        result += jax.lax.psum(sums, over) if over else sums
    return result


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def root_of_norm(ts: list[jax.Array], gs: list[jax.Array], axes: Axes) -> jax.Array:
    """sqrt(||T g||_2) over all leaves, in one pass; 0 for a zero g, NaN or inf where g has one.

    The idea is Blue's (1978), as in LAPACK's dnrm2: sums of small, middle and large squares at
    once. The root, since ||T g|| can overflow where no entry of eps does.
    """
    sums = _totals([_sums(t, g) for t, g in zip(ts, gs, strict=True)], axes)
    roots = jnp.sqrt(jnp.sqrt(sums)) * jnp.asarray([2.0**c for c in _CENTERS], sums.dtype)
    top = jnp.max(roots)
    scaled = roots / jnp.where(top == 0, jnp.ones_like(top), top)
    return top * jnp.sqrt(jnp.sqrt(jnp.sum(jnp.square(jnp.square(scaled)))))


@root_of_norm.defjvp
def _root_of_norm_jvp(axes: Axes, primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    """With r = sqrt(||v||) and v = T g: dr = <v, dv> / (2 r^3), and 0 for a zero g."""
    (ts, gs), (dts, dgs) = primals, tangents
    r = root_of_norm(ts, gs, axes)
    s = inverse(r)

    def part(t: jax.Array, g: jax.Array, dt: jax.Array, dg: jax.Array) -> jax.Array:
        own = s.astype(t.dtype)
        a = capped(t, own)
        b = a * g  # v / r
        return jnp.sum((own * b) * (a * dg) + (own * b) * g * (own * dt)) / 2

    parts = [part(*leaf) for leaf in zip(ts, gs, dts, dgs, strict=True)]
    keys = [jnp.max(jnp.abs(g), initial=0.0) for g in gs]
    return r, total(parts, axes, keys=keys).astype(r.dtype)


def inverse(size: jax.Array) -> jax.Array:
    """1 / size, 0 where that is 0, and NaN where it is not finite."""
    zero = size == 0
    result = jnp.where(zero, jnp.zeros_like(size), 1 / jnp.where(zero, jnp.ones_like(size), size))
    return jnp.where(jnp.isfinite(size), result, jnp.nan)


def root_and_inverse(tree: PyTree, axes: Axes) -> tuple[jax.Array, jax.Array]:
    """sqrt(||v||_2) over all leaves and its inverse; 0 and 0 for a zero v."""
    leaves = jax.tree.leaves(widened(tree))
    r = root_of_norm([jnp.ones((), leaf.dtype) for leaf in leaves], leaves, axes)
    return r, inverse(r)


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
    leaves = jax.tree.leaves(tree)
    if not leaves:
        return jnp.ones([], jnp.bool_)
    bad = [jnp.sum(~jnp.isfinite(leaf), dtype=jnp.float32) for leaf in leaves]
    return total(bad, axes) == 0


def if_finite(new: PyTree, old: PyTree, gradients: PyTree, axes: Axes = ()) -> PyTree:
    """The new state, or the old one where a gradient that it is made from is not finite.

    In the dtypes of the old one: optax.ema takes on those of the gradients.
    """
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

    zeros = jax.tree.map(jnp.zeros_like, tree) if other is None else other
    return jax.tree.map(choose, mask, tree, zeros)
