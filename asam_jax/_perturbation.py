"""The maximizer of the linearised loss over the region ||T_w^-1 eps||_p <= rho."""

from typing import Any

import jax
import jax.numpy as jnp

from asam_jax import _checks
from asam_jax._checks import PyTree, Scalar
from asam_jax._dtypes import wide, widest
from asam_jax._masked import is_frozen
from asam_jax._operators import Operator, elementwise
from asam_jax._orders import Pair, of


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
    the largest |T_w g|, in equal shares where several are largest or miss it by a rounding.

    Norms are taken in float32 or wider over all leaves together, and scaled by the largest
    magnitude, so that neither large nor small entries overflow or vanish. A zero gradient gives
    eps = 0. A NaN or an infinity anywhere in `grads` makes all of eps NaN, for every p; leaves that
    `masked` is known to freeze are left out of the program, and theirs are not looked at.

    Derivatives through eps, forward and reverse, are finite: at a zero gradient they are taken as
    0, and so are, for p other than 2, those at its zero entries. The compiled program grows
    linearly with the number of leaves.

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

    def pair(t: Any, g: Any, dtype: Any) -> Pair | None:
        """T_w and g of a leaf, in the dtype to compute in; None for a frozen one."""
        return (
            None if is_frozen(t) else (jnp.asarray(t).astype(dtype), jnp.asarray(g).astype(dtype))
        )

    pairs = list(map(pair, jax.tree.leaves(scales), jax.tree.leaves(grads), dtypes))
    moving = [pair for pair in pairs if pair is not None]
    if not moving:
        return jax.tree.map(jnp.zeros_like, params)
    order = of(p)
    scale, norm = order.scale_and_norm(moving, widest(dtypes))
    length = jnp.asarray(rho).astype(norm.dtype) / norm

    def leaf(w: Any, pair: Pair | None, dtype: Any) -> jax.Array:
        if pair is None:
            return jnp.zeros_like(w)
        eps = order.leaf(pair, scale.astype(dtype)) * length.astype(dtype)
        return eps.astype(jnp.result_type(w))

    return jax.tree.unflatten(treedef, map(leaf, leaves, pairs, dtypes))
