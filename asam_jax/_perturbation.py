"""The maximizer of the linearised loss over the region ||T_w^-1 eps||_p <= rho."""

import math

import jax
import jax.numpy as jnp

from asam_jax import _checks, _collectives, _operators, _tree
from asam_jax._collectives import Axes
from asam_jax._operators import elementwise
from asam_jax.typing import AxisName, Operator, PyTree, Scalar

# Two computations of one entry of T g may differ by as many roundings, which makes a tie at p = 1.
_ROUNDINGS = 16


def perturbation(
    params: PyTree,
    grads: PyTree,
    *,
    rho: Scalar,
    operator: Operator = elementwise(),  # noqa: B008 (a frozen value)
    p: float = 2.0,
    sharded_axis_name: AxisName = None,
) -> PyTree:
    r"""The normalised perturbation of ASAM (Kwon et al. 2021, Section 5).

    With 1/p + 1/q = 1,

        eps = rho T_w sign(g) |T_w g|^(q-1) / ||T_w g||_q^(q-1)

    which maximizes <g, eps> over ||T_w^-1 eps||_p <= rho. For p = 2 this is
    rho T_w^2 g / ||T_w g||_2, for p = inf rho T_w sign(g), and at p = 1 its limit: all of rho on
    the largest |T_w g|, in equal shares where several are largest.

    Norms are taken over all leaves together, in float32 at least, without overflow or underflow. A
    zero gradient gives eps = 0; a NaN or an infinity in `grads` makes all of eps NaN. What `masked`
    freezes has eps = 0, and its gradient is ignored. Derivatives through eps are finite; for p
    other than 2, those at zero entries of the gradient are taken as 0.

    Args:
      params: a tree of real floating-point arrays, w.
      grads: a tree of the same structure and shapes: the gradient g of the loss at w.
      rho: the radius of the region, a scalar of at least 0; may be traced. For the element-wise
        operator it is a relative change of the weights, for `identity` it has their units.
      operator: T_w, a function from params to a tree of scales that broadcast to the leaves.
      p: the order of the region's norm, a Python number from 1 to infinity.
      sharded_axis_name: mapped axes of `jax.shard_map` over which parameters are sharded (tensor,
        expert or pipeline parallel, FSDP by hand). The norm is summed over them for the leaves
        that vary over them; replicated leaves count once.

    Returns:
      eps: a tree of params' structure, shapes and dtypes.

    Raises:
      ValueError, TypeError: if rho < 0, p < 1 or traced, the trees differ, a leaf is not real
        floating point, or `sharded_axis_name` is used where types do not tell what varies.

    >>> import asam_jax, jax.numpy as jnp, numpy as np
    >>> w, g = jnp.array([2.0, -1.0]), jnp.array([2.0, 3.0])
    >>> eps = asam_jax.perturbation(w, g, rho=0.5, operator=asam_jax.elementwise())
    >>> print(np.asarray(eps).round(4))
    [0.8 0.3]
    >>> asam_jax.perturbation(w, g, rho=0.5, operator=asam_jax.identity(), p=jnp.inf)
    Array([0.5, 0.5], dtype=float32)
    """
    p = _checks.region(rho, operator, p)
    _checks.real_floating("params", params)
    _checks.same_tree("params", params, "grads", grads)
    _checks.real_floating("grads", grads)
    axes = _collectives.as_tuple(sharded_axis_name)
    _collectives.check_sharded(axes)
    scales = operator(params)
    _checks.scales(params, scales)
    trained = _operators.trained(operator, params)

    ws, treedef = jax.tree.flatten(params)
    ts, gs = jax.tree.leaves(scales), jax.tree.leaves(_tree.where(trained, grads))
    flags = [True] * len(ws) if trained is None else jax.tree.leaves(trained)
    moving = [index for index, flag in enumerate(flags) if flag is not False]
    dtypes = [_tree.wide(w) for w in ws]
    ts = [jnp.asarray(ts[i]).astype(dtypes[i]) for i in moving]
    gs = [jnp.asarray(gs[i]).astype(dtypes[i]) for i in moving]
    if p == 2:
        s = _tree.inverse_root_of_norm(ts, gs, axes)  # 1 / sqrt(||T g||)
        directions = [_direction(t, g, s) for t, g in zip(ts, gs, strict=True)]
    else:
        directions = _other_directions(ts, gs, p, axes) if ts else []
    eps = [jnp.zeros_like(w) for w in ws]
    for i, direction in zip(moving, directions, strict=True):
        eps[i] = (jnp.asarray(rho).astype(dtypes[i]) * direction).astype(jnp.result_type(ws[i]))
    return treedef.unflatten(eps)


@jax.jit  # traced once for each shape
def _direction(t: jax.Array, g: jax.Array, s: jax.Array) -> jax.Array:
    """Eps / rho for p = 2: T^2 g / ||T g|| = (s T) ((s T) g)."""
    a = _tree.capped(t, s)
    return a * (a * g)


def _other_directions(
    ts: list[jax.Array], gs: list[jax.Array], p: float, axes: Axes
) -> list[jax.Array]:
    """Eps / rho for any p: T sign(g) h / ||h||_p with h = (|T g| / max |T g|)^(1 / (p - 1)).

    The largest entry only scales. It has no derivative, since no eps depends on it.
    """
    tops = [jnp.max(_tree.root(t, g), initial=0.0) for t, g in zip(ts, gs, strict=True)]
    top = _tree.largest(jax.lax.stop_gradient(tops), axes)
    divisor = jnp.where(top == 0, jnp.ones_like(top), top)
    pairs = list(zip(ts, gs, strict=True))
    exponent = math.inf if p == 1 else 2 / (p - 1)
    shares = [_ratio_power(t, g, divisor, exponent) for t, g in pairs]
    length = jnp.ones_like(top)
    if p < math.inf:
        # ||h||_p^p is the sum of x^q with x = |T g| / max |T g| and q = p / (p - 1).
        powers = [jnp.sum(_ratio_power(t, g, divisor, p * exponent)) for t, g in pairs]
        whole = _tree.total(powers, axes)
        length = jnp.power(jnp.where(top == 0, jnp.ones_like(whole), whole), 1 / p)
    length = jnp.where(jnp.isfinite(top), length, jnp.nan)
    return [
        t * (share / length.astype(share.dtype)) * jnp.sign(g)
        for (t, g), share in zip(pairs, shares, strict=True)
    ]


def _ratio_power(t: jax.Array, g: jax.Array, top: jax.Array, exponent: float) -> jax.Array:
    """(sqrt(T |g|) / top)^exponent; 0, with a derivative of 0, where T g = 0."""
    top = top.astype(g.dtype)
    still = (t == 0) | (g == 0)
    x = _tree.root(jnp.where(still, 1, t), jnp.where(still, 1, g))
    if exponent == math.inf:
        tie = (x >= top * (1 - _ROUNDINGS * jnp.finfo(x.dtype).eps)).astype(x.dtype)
        power = jnp.where(jnp.isnan(x), x, tie)
    else:
        # A root comes before the division, which would flush to 0 what the root brings back.
        inner, outer = min(exponent, 1.0), max(exponent, 1.0)
        x = jnp.where(still, top, x)
        power = (x**inner / top**inner) ** outer
    return jnp.where(still, jnp.zeros_like(power), power)
