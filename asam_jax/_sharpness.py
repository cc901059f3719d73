"""Adaptive sharpness of a loss, Equation 4."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.core import Tracer

from asam_jax import _checks
from asam_jax._checks import PyTree, Scalar
from asam_jax._operators import Operator, elementwise
from asam_jax._perturbation import perturbation

LossFn = Callable[[PyTree, PyTree], jax.Array]


@functools.partial(jax.jit, static_argnames=("loss_fn", "operator", "p"))
def _ascend(
    loss_fn: LossFn,
    operator: Operator,
    p: float,
    params: PyTree,
    eps: PyTree,
    batch: PyTree,
    rho: Scalar,
    previous: jax.Array,
    stride: jax.Array,
) -> tuple[PyTree, jax.Array, jax.Array]:
    """One move in the coordinates T_w^-1 eps, towards the maximizer of the loss's linearisation.

    A convex combination of two points of the region is in the region, for every p. The stride
    starts at the whole way and is halved whenever the loss has fallen.
    """
    loss, grads = jax.value_and_grad(loss_fn)(jax.tree.map(jnp.add, params, eps), batch)
    loss = loss.astype(previous.dtype)
    corner = perturbation(params, grads, rho=rho, operator=operator, p=p)
    stride = jnp.where(loss < previous, 0.5 * stride, stride)
    towards = jax.tree.map(lambda e, c: e + stride.astype(e.dtype) * (c - e), eps, corner)
    return towards, loss, stride


@functools.partial(jax.jit, static_argnames="loss_fn")
def _loss_at(loss_fn: LossFn, params: PyTree, eps: PyTree, batch: PyTree) -> jax.Array:
    return loss_fn(jax.tree.map(jnp.add, params, eps), batch)


def _group_sharpness(
    loss_fn: LossFn,
    params: PyTree,
    batch: PyTree,
    *,
    rho: Scalar,
    operator: Operator,
    p: float,
    steps: int,
) -> jax.Array:
    """Sharpness on one group: the best loss met on `steps` moves from w, less the loss at w."""
    eps = jax.tree.map(jnp.zeros_like, params)
    stride, previous = jnp.ones(()), jnp.full((), -jnp.inf)
    losses = []
    for _ in range(steps):
        eps, previous, stride = _ascend(
            loss_fn, operator, p, params, eps, batch, rho, previous, stride
        )
        losses.append(previous)
    final = _loss_at(loss_fn, params, eps, batch)
    losses.append(final.astype(previous.dtype))
    best = losses[1] if steps == 1 else functools.reduce(jnp.maximum, losses)
    return (best - losses[0]).astype(final.dtype)


def _groups(batch: PyTree, m: int | None) -> tuple[PyTree, int]:
    """The batch with its leading axis cut into (groups, m), and the number of groups."""
    sizes = {jnp.shape(leaf)[:1] for leaf in jax.tree.leaves(batch)}
    if len(sizes) != 1 or () in sizes:
        raise ValueError(
            "batch must hold arrays with one leading axis of examples in common, got leading "
            f"axes {sorted(sizes)}."
        )
    n = sizes.pop()[0]
    size = n if m is None else m
    if isinstance(size, bool) or not isinstance(size, int) or size < 1 or size > n or n % size:
        raise ValueError(
            f"m must be a positive integer that divides the batch, got m={m} for {n} examples; "
            "choose a divisor or drop the remainder of the batch."
        )
    count = n // size
    return jax.tree.map(lambda x: jnp.reshape(x, (count, size, *jnp.shape(x)[1:])), batch), count


def sharpness(
    loss_fn: LossFn,
    params: PyTree,
    batch: PyTree,
    *,
    rho: Scalar,
    operator: Operator = elementwise(),  # noqa: B008 (a frozen value)
    p: float = 2.0,
    m: int | None = None,
    steps: int = 1,
) -> jax.Array:
    """Adaptive sharpness, averaged over groups of m examples.

        mean over groups of  max over ||T_w^-1 eps||_p <= rho  of  L(w + eps) - L(w)

    With one step the maximizer is that of the loss's linearisation, `perturbation`, as in
    training. With more, the ascent goes on in the coordinates T_w^-1 eps, where the region is a
    plain p-ball: each step moves towards the maximizer of the linearisation at the current
    point, all the way at first and half as far after each fall of the loss. So it never leaves
    the region, and it is as invariant to rescaling as the region is. The best loss met counts:
    never less than the one-step value, nor than L(w) itself.

    Called with concrete arrays it loops over the groups with one compiled function, which is
    found again for the same loss_fn and an equal operator. Called under jit it maps over the
    groups by vmap, which holds one eps for each group in memory.

    Args:
      loss_fn: `loss_fn(params, batch)` -> the mean loss over the batch, a scalar.
      params: a tree of real floating-point arrays, w.
      batch: a tree of arrays with a leading axis of examples.
      rho: the radius of the region, a scalar of at least 0. See `perturbation`.
      operator: T_w, taken at w. See `perturbation`.
      p: the order of the region's norm, from 1 to infinity.
      m: examples in a group; must divide the batch. None for the whole batch as one group.
      steps: ascent steps, at least 1: each costs a gradient, and one more loss in the end.

    Returns:
      A scalar in the loss's units and dtype.

    Raises:
      ValueError: if m does not divide the batch, rho < 0, p < 1 or steps < 1.
      TypeError: if loss_fn or operator is not callable.

    >>> import asam_jax, jax.numpy as jnp
    >>> loss = lambda w, x: jnp.mean(x @ w)
    >>> w, x = jnp.array([3.0, 4.0]), jnp.array([[3.0, 0.0], [0.0, 4.0]])
    >>> asam_jax.sharpness(loss, w, x, rho=0.5, operator=asam_jax.identity())
    Array(1.25, dtype=float32)
    >>> asam_jax.sharpness(loss, w, x, rho=0.5, operator=asam_jax.identity(), m=1)
    Array(1.75, dtype=float32)

    References:
      Kwon et al., ASAM, 2021, Equation 4 and Appendix B; Foret et al., SAM, 2020 (m-sharpness).
    """
    _checks.function("loss_fn", loss_fn)
    _checks.function("operator", operator)
    _checks.radius(rho)
    _checks.norm_order(p)
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise ValueError(f"steps must be a positive integer, got {steps!r}.")
    grouped, count = _groups(batch, m)
    measure = functools.partial(
        _group_sharpness, loss_fn, rho=rho, operator=operator, p=p, steps=steps
    )
    traced = [params, batch, rho]
    if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(traced)):
        return jnp.mean(jax.vmap(measure, in_axes=(None, 0))(params, grouped))
    values = [measure(params, jax.tree.map(lambda x: x[i], grouped)) for i in range(count)]  # noqa: B023
    return jnp.mean(jnp.stack(values))
