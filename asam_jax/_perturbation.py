"""The maximizer of the linearised loss over the region ||T_w^-1 eps||_p <= rho."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from asam_jax import _checks
from asam_jax._checks import PyTree, Scalar
from asam_jax._dtypes import wide, widest
from asam_jax._operators import Operator, elementwise


def _power(base: jax.Array, exponent: Any) -> jax.Array:
    """Raises base >= 0 to an exponent >= 0; where that is infinite, base <= 1 and 1 ** inf = 1."""
    if isinstance(exponent, jax.Array):
        return jnp.power(base, exponent.astype(base.dtype))
    if exponent == 0.0:
        return jnp.ones_like(base)
    if exponent == 1.0:
        return base
    if exponent == math.inf:
        return jnp.where(jnp.isnan(base), base, (base == 1).astype(base.dtype))
    return jnp.power(base, exponent)


def _fraction(part: jax.Array, whole: jax.Array) -> jax.Array:
    """Divides, and gives exactly 1 where part is the whole.

    XLA divides by a shared number through its reciprocal, which can miss 1 by a rounding; at
    p = 1 that would lose the largest entry.
    """
    return jnp.where(part == whole, 1.0, part / whole)


def _powers(root: jax.Array, top: jax.Array, r: Any) -> jax.Array:
    """(root / top) ** r for 0 <= root <= top.

    A power below one is taken before the division: a small root must not be flushed to zero
    when the power would have brought it back.
    """
    inner, outer = (
        (jnp.minimum(r, 1.0), jnp.maximum(r, 1.0))
        if isinstance(r, jax.Array)
        else (min(r, 1.0), max(r, 1.0))
    )
    return _power(_fraction(_power(root, inner), _power(top, inner)), outer)


def _roots(scales: list[jax.Array], grads: list[jax.Array]) -> list[jax.Array]:
    """sqrt(T) sqrt|g|, since T |g| can overflow or underflow where T and g do not."""
    return [jnp.sqrt(t) * jnp.sqrt(jnp.abs(g)) for t, g in zip(scales, grads, strict=True)]


def _halves(roots: list[jax.Array], top: jax.Array, p: Any) -> list[jax.Array]:
    """The leaves of (|T g| / max|T g|) ** ((q - 1) / 2)."""
    r = math.inf if not isinstance(p, jax.Array) and p == 1 else 1.0 / (p - 1.0)  # q - 1
    return [_powers(root, top.astype(root.dtype), r) for root in roots]


def _top_and_norm(roots: list[jax.Array], p: Any, norm_dtype: Any) -> tuple[jax.Array, jax.Array]:
    """sqrt(max|T g|), or 1 where all is zero, and the p-norm of the squares of `_halves`."""
    peak = jnp.stack([jnp.max(root, initial=0.0).astype(norm_dtype) for root in roots]).max()
    top = jnp.where(peak == 0, jnp.ones_like(peak), peak)
    # ||x^(q-1)||_p = (sum x^q)^(1/p), and x^q = (x^(1/2) x^((q-1)/2))^2
    sums = [
        jnp.sum(jnp.square(_fraction(root, top.astype(root.dtype)) * half)).astype(norm_dtype)
        for root, half in zip(roots, _halves(roots, top, p), strict=True)
    ]
    norm = jnp.power(jnp.stack(sums).sum(), 1.0 / jnp.asarray(p).astype(norm_dtype))
    norm = jnp.where(peak == 0, jnp.ones_like(peak), norm)
    return top, jnp.where(jnp.isfinite(peak), norm, jnp.nan)


def perturbation(
    params: PyTree,
    grads: PyTree,
    *,
    rho: Scalar,
    operator: Operator = elementwise(),  # noqa: B008 (a frozen value)
    p: Scalar = 2.0,
) -> PyTree:
    r"""The normalised perturbation of ASAM.

    With 1/p + 1/q = 1,

        eps = rho T_w sign(g) |T_w g|^(q-1) / ||T_w g||_q^(q-1)

    which maximizes <g, eps> over ||T_w^-1 eps||_p <= rho. For p = 2 this is
    rho T_w^2 g / ||T_w g||_2, for p = inf rho T_w sign(g), and at p = 1 its limit: all of rho on
    the largest |T_w g|, in equal shares where several are largest.

    Norms are taken in float32 or wider over all leaves together, and scaled by the largest
    magnitude, so that neither large nor small entries overflow or vanish. A zero gradient gives
    eps = 0. A NaN or an infinity anywhere in `grads` makes all of eps NaN, for every p.

    Args:
      params: a tree of real floating-point arrays, w.
      grads: a tree of the same structure and shapes: the gradient g of the loss at w.
      rho: the radius of the region, a scalar of at least 0, measured in ||T_w^-1 eps||_p: for
        the element-wise operator a relative change of the weights, for `identity` their units.
      operator: T_w, a function from params to a tree of scales that broadcast to the leaves.
      p: the order of the region's norm, from 1 to infinity.

    Returns:
      eps: a tree of params' structure, shapes and dtypes.

    Raises:
      ValueError: if rho < 0 or p < 1 (where concrete), or if structures or shapes differ.
      TypeError: if a leaf of params is not real floating point.

    >>> import asam_jax, jax.numpy as jnp, numpy as np
    >>> w, g = jnp.array([2.0, -1.0]), jnp.array([2.0, 3.0])
    >>> eps = asam_jax.perturbation(w, g, rho=0.5, operator=asam_jax.elementwise(eta=0.0))
    >>> print(np.asarray(eps).round(4))
    [0.8 0.3]
    >>> asam_jax.perturbation(w, g, rho=0.5, operator=asam_jax.identity(), p=jnp.inf)
    Array([0.5, 0.5], dtype=float32)

    References:
      Kwon et al., ASAM, 2021, Section 5.
    """
    _checks.radius(rho)
    _checks.norm_order(p)
    _checks.function("operator", operator)
    _checks.no_placeholders(grads)
    _checks.floating("params", params)
    _checks.same_tree("params", params, "grads", grads)
    _checks.floating("grads", grads)
    leaves, treedef = jax.tree.flatten(params)
    if not leaves:
        return params
    scales = operator(params)
    _checks.scales(params, scales)
    dtypes = [wide(w) for w in leaves]
    norm_dtype = widest(dtypes)

    def widened(tree: PyTree) -> list[jax.Array]:
        arrays = zip(jax.tree.leaves(tree), dtypes, strict=True)
        return [jnp.asarray(x).astype(d) for x, d in arrays]

    roots = _roots(widened(scales), widened(grads))
    top, norm = _top_and_norm(roots, p, norm_dtype)
    factor = jnp.asarray(rho).astype(norm_dtype) / norm
    # T_w is as large as the parameters: behind the barrier it is computed again, not kept.
    params, grads, top, factor = jax.lax.optimization_barrier((params, grads, top, factor))
    t, g = widened(operator(params)), widened(grads)

    def leaf_eps(w: Any, scale: jax.Array, grad: jax.Array, half: jax.Array) -> jax.Array:
        eps = (scale * half) * half * (jnp.sign(grad) * factor.astype(grad.dtype))
        return eps.astype(jnp.result_type(w))

    return jax.tree.unflatten(treedef, map(leaf_eps, leaves, t, g, _halves(_roots(t, g), top, p)))
