"""How far the loss rises at several radii, and how far its linearisation does."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from asam_jax import _checks
from asam_jax._batches import divisor, piece, rolled, size_of
from asam_jax._checks import PyTree, Scalar
from asam_jax._dtypes import wide, widest
from asam_jax._means import mean_over
from asam_jax._objective import Losses, LossFn, Objective, scales_of
from asam_jax._operators import Operator, elementwise
from asam_jax._perturbation import perturbation
from asam_jax._reductions import total


class RadiusProfile(NamedTuple):
    """What `radius_profile` measures; R is the number of radii.

    Attributes:
      rise: L(w + eps) - L(w) at each radius, of shape [R], in the loss's units.
      linear: rho ||T_w g||_q, what the loss's linearisation rises by, of shape [R].
      slope: ||T_w g||_q, the rise to first order for each unit of rho, a scalar.
      loss: L(w), a scalar.

    >>> import asam_jax, jax.numpy as jnp
    >>> loss = lambda w, x: jnp.sum(w**2)
    >>> asam_jax.radius_profile(loss, jnp.ones(4), jnp.ones((1, 1)), [0.5]).loss
    Array(4., dtype=float32)
    """

    rise: jax.Array
    linear: jax.Array
    slope: jax.Array
    loss: jax.Array


def radius_profile(
    loss_fn: LossFn,
    params: PyTree,
    batch: PyTree,
    radii: Any,
    *,
    operator: Operator = elementwise(),  # noqa: B008 (a frozen value)
    p: float = 2.0,
    m: int | None = None,
    batch_size: int | None = None,
) -> RadiusProfile:
    """The rise of the loss over radii, and that of its linearisation.

        rise(rho)   = L(w + eps) - L(w),   eps = perturbation(w, g, rho=rho)
        linear(rho) = <g, eps> = rho ||T_w g||_q,   1/p + 1/q = 1

    It costs one gradient and a loss for each radius, so that it can be called once an epoch. Where
    the two part, a step of that radius leaves the region in which the gradient at w foretells the
    loss; `rise / loss` says how much a step of that radius changes.

    `rise` is `sharpness` with one step, at all radii from one gradient, and what is said there
    holds here: of groups of m examples each has its own eps, and all is averaged over them;
    batch_size cuts a group where it is too large for the memory; with concrete arrays compiled
    functions are called one after another, and under jit the passes become part of the program,
    one for each radius, never a loop over radii. The radii may be traced; others of the same
    number compile nothing anew.

    Args:
      loss_fn: `loss_fn(params, batch)` -> the mean loss over the batch, a scalar.
      params: a tree of real floating-point arrays, w.
      batch: a tree of arrays with a leading axis of examples; NumPy arrays are fine.
      radii: an array or a sequence of shape [R], each radius at least 0; R at least 1.
      operator: T_w, taken at w. See `perturbation`.
      p: the order of the region's norm, from 1 to infinity.
      m: examples in a group; must divide the batch. None for the whole batch as one group.
      batch_size: examples that loss_fn sees at once; must divide the group. None for all.

    Returns:
      A `RadiusProfile` of float32, or of the loss's dtype where that is wider.

    Raises:
      ValueError: if radii is not one axis of numbers of at least 0, m does not divide the batch,
        batch_size does not divide the group, or p < 1.
      TypeError: if loss_fn or operator is not callable, if loss_fn returns no real scalar, or if
        a leaf is not real floating point.

    >>> import asam_jax, jax.numpy as jnp, numpy as np
    >>> loss = lambda w, x: jnp.mean(x) * jnp.sum(w**2)
    >>> w, x = jnp.array([3.0, 4.0]), jnp.ones((5, 1))
    >>> sam = asam_jax.identity()
    >>> profile = asam_jax.radius_profile(loss, w, x, [0.1, 1.0], operator=sam)
    >>> print(np.asarray(profile.rise).round(3), profile.linear, profile.slope)
    [ 1.01 11.  ] [ 1. 10.] 10.0

    References:
      Kwon et al., ASAM, 2021, Section 5.
    """
    losses = Losses(loss_fn)
    radii = radii_of(radii)
    _checks.norm_order(p)
    examples = size_of(batch)
    m = divisor("m", m, examples, "the batch")
    size = divisor("batch_size", batch_size, m, "the group")
    scales = scales_of(operator, params)
    pieces, roll = m // size, rolled(params, batch, radii)

    def group(index: jax.typing.ArrayLike) -> tuple[list[jax.Array], jax.Array, jax.Array]:
        def batch_of(i: jax.typing.ArrayLike) -> PyTree:
            return piece(batch, index * pieces + i, size)

        objective = Objective(losses, params, pieces, batch_of, roll)
        objective, _, grads = objective.begun_with_grad()
        rises = [objective.rise(_eps(params, scales, grads, rho, p)) for rho in radii]
        loss = mean_over(pieces, lambda i: objective.at_w[i], roll=roll)
        return rises, _slope(params, scales, grads, p).astype(loss.dtype), loss

    rises, slope, loss = mean_over(examples // m, group, roll=roll)
    rise = jnp.stack(rises)
    return RadiusProfile(rise, _times(slope, jnp.asarray(radii)), slope, loss)


def radii_of(radii: Any) -> Any:
    """The radii as an array of one axis."""
    radii = radii if isinstance(radii, (Tracer, jax.Array)) else np.asarray(radii)
    kind = jnp.issubdtype(radii.dtype, jnp.floating) or jnp.issubdtype(radii.dtype, jnp.integer)
    if np.ndim(radii) != 1 or not np.size(radii) or not kind:
        raise ValueError(
            f"radii must be real numbers along one axis, one at least, got {radii.dtype} of shape "
            f"{np.shape(radii)}; for a single radius pass [rho]."
        )
    if isinstance(radii, Tracer):
        return radii
    radii = np.asarray(radii)
    for number, rho in enumerate(radii):
        _checks.at_least(f"radii[{number}]", rho, 0.0)
    return radii


@functools.partial(jax.jit, static_argnames="p")
def _eps(params: PyTree, scales: PyTree, grads: PyTree, rho: Scalar, p: float) -> PyTree:
    return perturbation(params, grads, rho=rho, operator=lambda _: scales, p=p)


@functools.partial(jax.jit, static_argnames="p")
def _slope(params: PyTree, scales: PyTree, grads: PyTree, p: float) -> jax.Array:
    """||T_w g||_q = <g, eps> for rho = 1, of which no term is larger than the sum or below 0."""
    params, grads = (jax.tree.map(lambda a: jnp.asarray(a, wide(a)), t) for t in (params, grads))
    eps = perturbation(params, grads, rho=1.0, operator=lambda _: scales, p=p)

    def rise(g: jax.Array, e: jax.Array, t: Any) -> jax.Array:
        # What does not move has no say: the gradient of a frozen leaf may be no number.
        return jnp.sum(jnp.where(jnp.asarray(t) == 0, jnp.zeros_like(e), g.astype(e.dtype) * e))

    parts = jax.tree.leaves(jax.tree.map(rise, grads, eps, scales))
    return total(parts, widest(part.dtype for part in parts))


@jax.jit
def _times(slope: jax.Array, radii: jax.Array) -> jax.Array:
    return slope.reshape(1) * radii.astype(slope.dtype)
