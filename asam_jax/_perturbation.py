"""The maximizer of the linearised loss over the region ||T_w^-1 eps||_p <= rho."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from asam_jax import _checks
from asam_jax._checks import PyTree, Scalar
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


def _conjugate_exponent(p: Any) -> Any:
    """The number q - 1 = 1 / (p - 1), from inf at p = 1 to 0 at p = inf; traced p is allowed."""
    if isinstance(p, jax.Array):
        return 1.0 / (p - 1.0)
    return math.inf if p == 1 else 1.0 / (p - 1.0)


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

    wide = [jnp.promote_types(jnp.result_type(w), jnp.float32) for w in leaves]
    norm_dtype = jnp.result_type(*wide)
    t = [jnp.asarray(s).astype(d) for s, d in zip(jax.tree.leaves(scales), wide, strict=True)]
    g = [jnp.asarray(x).astype(d) for x, d in zip(jax.tree.leaves(grads), wide, strict=True)]

    # sqrt(T) sqrt|g| instead of T |g|: for T and g anywhere in the dtype's range it neither
    # overflows nor underflows, and its powers below give those of |T g| / max|T g|.
    roots = [jnp.sqrt(a) * jnp.sqrt(jnp.abs(b)) for a, b in zip(t, g, strict=True)]
    peak = jnp.stack([jnp.max(r, initial=0.0).astype(norm_dtype) for r in roots]).max()
    unit = jnp.where(peak == 0, jnp.ones_like(peak), peak)

    # half = (|T g| / max|T g|) ** ((q - 1) / 2), written so that a small root is not flushed to
    # zero before a power below one could bring it back.
    r = _conjugate_exponent(p)
    inner = jnp.minimum(r, 1.0) if isinstance(r, jax.Array) else min(r, 1.0)
    outer = jnp.maximum(r, 1.0) if isinstance(r, jax.Array) else max(r, 1.0)

    def split(root: jax.Array) -> tuple[jax.Array, jax.Array]:
        base = unit.astype(root.dtype)
        return root / base, _power(_power(root, inner) / _power(base, inner), outer)

    powers = [split(root) for root in roots]
    total = jnp.stack([jnp.sum(jnp.square(s * h)).astype(norm_dtype) for s, h in powers]).sum()
    inverse = 1.0 / jnp.asarray(p).astype(norm_dtype)
    length = jnp.where(peak == 0, jnp.ones_like(peak), jnp.power(total, inverse))
    length = jnp.where(jnp.isfinite(peak), length, jnp.nan)
    factor = jnp.asarray(rho).astype(norm_dtype) / length

    def leaf_eps(w: Any, scale: jax.Array, grad: jax.Array, half: jax.Array) -> jax.Array:
        eps = (scale * half) * half * (jnp.sign(grad) * factor.astype(grad.dtype))
        return eps.astype(jnp.result_type(w))

    halves = [h for _, h in powers]
    return jax.tree.unflatten(treedef, map(leaf_eps, leaves, t, g, halves))
