"""The entries of eps for each order p of the region's norm, safe in range and in derivative.

Everything is made from |T g| over its largest value: T |g| itself can overflow or underflow where
T and g do not. That value only scales and has no derivative, which changes nothing: no eps depends
on it. All is computed leaf by leaf; two numbers, `scale` and `norm`, are shared.

What a leaf takes is under a jit of its own: leaves of one shape are traced once, which is half of
what tracing the perturbation of a deep network costs.
"""

import dataclasses
import math
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax.core import Tracer

from asam_jax._checks import Scalar
from asam_jax._reductions import largest, power_of_two, total

# By so many roundings an entry may differ from the same entry computed elsewhere.
_ROUNDINGS = 16

Pair = tuple[jax.Array, jax.Array]  # T_w and g of a leaf, in the dtype to compute in


class Order(Protocol):
    """How eps is made from T_w and g."""

    def scale_and_norm(self, pairs: list[Pair], dtype: Any) -> tuple[jax.Array, jax.Array]:
        """What all leaves share, two scalars of `dtype`."""
        ...

    def leaf(self, pair: Pair, scale: jax.Array) -> jax.Array:
        """The eps of one leaf, but for rho and the division by `norm`."""
        ...


def of(p: Scalar) -> Order:
    """The order of the region's norm; a known 2 has formulas of its own."""
    p = p if isinstance(p, Tracer) else float(p)  # pyright: ignore[reportArgumentType]
    return _Euclidean() if isinstance(p, float) and p == 2 else _General(p)


def _root(t: jax.Array, g: jax.Array) -> jax.Array:
    """sqrt(T |g|), which neither overflows nor underflows."""
    return jnp.sqrt(t) * jnp.sqrt(jnp.abs(g))


def _peak(pairs: list[Pair], dtype: Any) -> jax.Array:
    """The largest sqrt(T |g|) of all leaves, exactly."""
    return largest([_largest_root(*pair) for pair in pairs], dtype)


@jax.jit
def _largest_root(t: jax.Array, g: jax.Array) -> jax.Array:
    root = _root(*jax.lax.stop_gradient((t, g)))
    return jnp.max(root) if root.size else jnp.zeros((), root.dtype)


def _divisor(power: jax.Array, peak: jax.Array) -> jax.Array:
    """The power of a norm; infinity for a gradient of 0, and NaN where an entry is not finite."""
    power = jnp.where(peak == 0, jnp.inf, power)
    return jnp.where(jnp.isfinite(peak), power, jnp.nan)


def _capped(t: jax.Array, scale: jax.Array) -> jax.Array:
    """T scale. It overflows only where g = 0, and there any finite number will do."""
    return jnp.minimum(t * scale, jnp.finfo(t.dtype).max)


@dataclasses.dataclass(frozen=True)
class _Euclidean:
    """p = 2: eps = rho T^2 g / ||T g||_2, linear in each g but for the norm."""

    def scale_and_norm(self, pairs: list[Pair], dtype: Any) -> tuple[jax.Array, jax.Array]:
        peak = _peak(pairs, dtype)
        scale = 1 / power_of_two(peak)
        square = total([_square(t, g, scale.astype(g.dtype)) for t, g in pairs], dtype)
        return scale, jnp.sqrt(_divisor(square, peak))

    def leaf(self, pair: Pair, scale: jax.Array) -> jax.Array:
        return _euclidean_leaf(*pair, scale)


@jax.jit
def _square(t: jax.Array, g: jax.Array, scale: jax.Array) -> jax.Array:
    """||scale^2 T g||_2^2 of a leaf."""
    return jnp.sum(jnp.square(_capped(t, scale) * g * scale))


@jax.jit
def _euclidean_leaf(t: jax.Array, g: jax.Array, scale: jax.Array) -> jax.Array:
    """scale^2 T^2 g of a leaf."""
    capped = _capped(t, scale)
    return capped * (capped * g)


@dataclasses.dataclass(frozen=True)
class _General:
    """Any p: eps = rho T sign(g) x^(q-1) / ||x||_q^(q-1), x = |T g| / max|T g|.

    At g = 0 the derivative is taken as 0 for p != 2: for p < 2 it is, for p > 2 there is none.
    """

    p: Any

    def scale_and_norm(self, pairs: list[Pair], dtype: Any) -> tuple[jax.Array, jax.Array]:
        peak = _peak(pairs, dtype)
        top = jnp.where(peak == 0, jnp.ones_like(peak), peak)
        if not isinstance(self.p, Tracer) and self.p == math.inf:
            return top, _divisor(jnp.ones_like(peak), peak)

        def powers(t: jax.Array, g: jax.Array) -> jax.Array:
            # ||x^(q-1)||_p = (sum x^q)^(1/p), and x^q = (x^(1/2) x^((q-1)/2))^2
            own = top.astype(g.dtype)
            return jnp.sum(jnp.square(_ratio(_moved_root(t, g, own), own) * self._half(t, g, own)))

        whole = total([powers(t, g) for t, g in pairs], dtype)
        whole = jnp.where(peak == 0, jnp.ones_like(whole), whole)
        inverse = 1 / self.p if isinstance(self.p, float) else (1 / self.p).astype(dtype)
        return top, _divisor(jnp.power(whole, inverse), peak)

    def leaf(self, pair: Pair, scale: jax.Array) -> jax.Array:
        t, g = pair
        half = self._half(t, g, scale)
        eps = (t * half) * half * jnp.sign(g)
        if isinstance(self.p, Tracer):  # it may be 2: then zero entries have a derivative
            capped = _capped(t, 1 / scale)
            eps = jnp.where((g == 0) & (self.p == 2), capped * (capped * g), eps)
        return eps

    def _half(self, t: jax.Array, g: jax.Array, top: jax.Array) -> jax.Array:
        """x^((q-1)/2), 0 where x is."""
        root = _moved_root(t, g, top)
        if isinstance(self.p, Tracer):
            exponent = (1 / (self.p - 1)).astype(g.dtype)
            limit = jnp.isinf(exponent)  # p = 1
            exponent = jnp.where(limit, jnp.ones_like(exponent), exponent)
            half = _power_of_ratio(root, top, jnp.minimum(exponent, 1), jnp.maximum(exponent, 1))
            half = jnp.where(limit, _is(root, top), half)
        elif self.p == 1:
            half = _is(root, top)
        else:
            exponent = 1 / (self.p - 1)
            half = _power_of_ratio(root, top, min(exponent, 1.0), max(exponent, 1.0))
        return jnp.where(_still(t, g), jnp.zeros_like(half), half)


def _still(t: jax.Array, g: jax.Array) -> jax.Array:
    return (t == 0) | (g == 0)


def _moved_root(t: jax.Array, g: jax.Array, top: jax.Array) -> jax.Array:
    """sqrt(T |g|); where that is 0 and has no derivative, `top` in its place."""
    still = _still(t, g)
    root = _root(jnp.where(still, 1, t), jnp.where(still, 1, g))
    return jnp.where(still, top, root)


def _is(root: jax.Array, top: jax.Array) -> jax.Array:
    """1 at the largest entries, else 0; NaN stays.

    XLA may compute an entry for its leaf and for `top` in two kernels that round otherwise, so that
    none need equal `top` to the bit. What lies within some roundings of it counts as equal.
    """
    least = top * (1 - _ROUNDINGS * jnp.finfo(top.dtype).eps)
    return jnp.where(jnp.isnan(root), root, (root >= least).astype(root.dtype))


def _ratio(part: jax.Array, whole: jax.Array) -> jax.Array:
    """Divides, and gives exactly 1 where part is the whole.

    XLA divides by a shared number through its reciprocal, which can miss 1 by a rounding; near
    p = 1 that would lose the largest entry.
    """
    ratio = part / whole
    miss = jnp.where(part == whole, 1 - ratio, jnp.zeros_like(ratio))
    return ratio + jax.lax.stop_gradient(miss)


def _power_of_ratio(root: jax.Array, top: jax.Array, inner: Any, outer: Any) -> jax.Array:
    """(root / top) ** (inner outer), for an inner of at most 1.

    That is taken before the division: a small root must not be flushed to zero when the power
    would have brought it back.
    """
    return _power(_ratio(_power(root, inner), _power(top, inner)), outer)


def _power(base: jax.Array, exponent: Any) -> jax.Array:
    if isinstance(exponent, float) and exponent in (0.0, 1.0):
        return base if exponent else jnp.ones_like(base)
    return jnp.power(base, exponent)
