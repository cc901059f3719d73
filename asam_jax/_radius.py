"""The increase of the loss at w + eps at several radii, and the radius of a given increase."""

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer

from asam_jax import _checks, _collectives
from asam_jax._operators import elementwise
from asam_jax._perturbation import perturbation
from asam_jax._tree import total, wide, widened
from asam_jax.typing import Operator, PyTree, Scalar

LossFn = Callable[[PyTree, PyTree], jax.Array]


class Loss:
    """loss_fn at w + eps on a batch, without and with its gradient, compiled once while kept."""

    def __init__(self, loss_fn: LossFn) -> None:
        def value(params: PyTree, eps: PyTree, batch: PyTree) -> jax.Array:
            loss = loss_fn(jax.tree.map(jnp.add, params, eps), batch)
            return jnp.asarray(loss).astype(wide(loss)).reshape(())

        def value_and_grad(params: PyTree, eps: PyTree, batch: PyTree) -> tuple[jax.Array, PyTree]:
            if jax.sharding.get_abstract_mesh().manual_axes:
                # At replicated parameters shard_map would sum the gradient over devices, though
                # each has a loss of its own.
                kind = jax.eval_shape(value, params, eps, batch).manual_axis_type
                params = _collectives.vary(params, tuple(kind.varying) if kind else ())
            loss, grads = jax.value_and_grad(value)(params, eps, batch)
            return loss, widened(grads)

        self.at, self.with_grad = jax.jit(value), jax.jit(value_and_grad)


def groups_of(batch: PyTree, m: Any) -> Iterator[PyTree]:
    """The groups of m examples; the batch as it is where m is None."""
    leaves = jax.tree.leaves(batch)
    if leaves and not any(map(jnp.size, leaves)):
        raise ValueError("batch must hold an example at least, got arrays of none.")
    if m is None:
        return iter([batch])
    sizes = {jnp.shape(leaf)[:1] for leaf in leaves}
    m = _checks.count("m", m, 1)
    if len(sizes) != 1 or () in sizes or next(iter(sizes))[0] % m:
        raise ValueError(
            "m must divide the one leading axis that the arrays of batch have in common, got "
            f"m={m} and leading axes {sorted(sizes)}; choose a divisor, or drop the remainder."
        )

    def part(leaf: Any, first: int) -> Any:
        # NumPy arrays are sliced where they are, so that the device holds one group at a time.
        if not isinstance(leaf, jax.Array):
            return leaf[first : first + m]
        return jax.lax.dynamic_slice_in_dim(leaf, first, m)

    starts = range(0, sizes.pop()[0], m)
    return (jax.tree.map(functools.partial(part, first=first), batch) for first in starts)


def mean(terms: Iterable[PyTree]) -> PyTree:
    """The mean of trees of scalars."""
    terms = list(terms)
    return jax.tree.map(lambda *scalars: sum(scalars) / len(terms), *terms)


class RadiusProfile(NamedTuple):
    """What `radius_profile` measures.

    The increases of the loss and of its linearisation at R radii, of shape [R]; the slope
    ||T_w g||_q and the loss L(w), scalars.
    """

    rise: jax.Array
    linear: jax.Array
    slope: jax.Array
    loss: jax.Array


def radius_profile(
    loss_fn: LossFn,
    *,
    operator: Operator = elementwise(),  # noqa: B008 (a frozen value)
    p: float = 2.0,
    m: int | None = None,
) -> Callable[[PyTree, PyTree, Any], RadiusProfile]:
    """The increase of the loss at several radii, and that of its linearisation.

        rise(rho)   = L(w + eps) - L(w),   eps = perturbation(w, g, rho=rho)
        linear(rho) = <g, eps> = rho ||T_w g||_q,   1/p + 1/q = 1

    It costs one gradient and a loss for each radius. Where the two differ, the gradient at w no
    longer predicts the loss. `rise` is `sharpness` with one step.

    Args:
      loss_fn: see `sharpness`, as for operator, p, m and the errors.

    Returns:
      A function of (params, batch, radii), radii of shape [R], each at least 0 and maybe traced,
      that returns a `RadiusProfile` of float32, or of the loss's dtype where that is wider.

    >>> import asam_jax, jax.numpy as jnp, numpy as np
    >>> loss = lambda w, x: jnp.mean(x) * jnp.sum(w**2)
    >>> w, x = jnp.array([3.0, 4.0]), jnp.ones((5, 1))
    >>> profile = asam_jax.radius_profile(loss, operator=asam_jax.identity())(w, x, [0.1, 1.0])
    >>> print(np.asarray(profile.rise).round(3), profile.linear, profile.slope)
    [ 1.01 11.  ] [ 1. 10.] 10.0
    """
    loss = Loss(loss_fn)
    _checks.region(0.0, operator, p)
    eps_at = jax.jit(functools.partial(perturbation, operator=operator, p=p))

    @jax.jit
    def slope_at(params: PyTree, grads: PyTree) -> jax.Array:
        # <g, eps> at rho = 1, of which no term is larger than the sum or below 0.
        eps = perturbation(widened(params), grads, rho=1.0, operator=operator, p=p)
        # A frozen entry has eps = 0; its gradient may be NaN.
        own = jax.tree.map(lambda g, e: jnp.where(e == 0, jnp.zeros_like(g), g), grads, eps)
        parts = jax.tree.map(lambda g, e: jnp.sum(g.astype(e.dtype) * e), own, eps)
        return total(jax.tree.leaves(parts))

    def measure(params: PyTree, batch: PyTree, radii: Any) -> RadiusProfile:
        if not isinstance(radii, Tracer):
            radii = np.asarray(radii)
            _checks.number("the smallest of radii", radii.min(), 0.0)

        def of(group: PyTree) -> tuple[list[jax.Array], jax.Array, jax.Array]:
            at_w, grads = loss.with_grad(params, optax.tree.zeros_like(params), group)
            each = [loss.at(params, eps_at(params, grads, rho=rho), group) for rho in radii]
            return [at - at_w for at in each], slope_at(params, grads).astype(at_w.dtype), at_w

        rises, slope, value = mean(map(of, groups_of(batch, m)))
        linear = slope.reshape(1) * jnp.asarray(radii).astype(slope.dtype)
        return RadiusProfile(jnp.stack(rises), linear, slope, value)

    return measure


def radius_at(profile: RadiusProfile, radii: Any, rise: Scalar, default: Scalar) -> jax.Array:
    """The smallest rho at which the loss increases by `rise`, between measured radii.

        rho:  L(w + eps(rho)) - L(w) = rise

    The increase is interpolated linearly, from 0 at rho = 0 on; one that is not finite counts as
    beyond any target. Where no radius reaches it, the result is the last one.

    Args:
      profile: what `radius_profile` measured at these radii.
      radii: those radii, of shape [R], increasing, above 0, else a ValueError.
      rise: the target, above 0, in the loss's units: a share of `profile.loss`, say.
      default: the result where loss, slope or all increases are not finite: in training, the
        present radius.

    >>> import asam_jax, jax.numpy as jnp
    >>> loss = lambda w, x: jnp.mean(x) * jnp.sum(w**2)
    >>> w, x, radii = jnp.array([3.0, 4.0]), jnp.ones((5, 1)), [0.1, 1.0, 10.0]
    >>> profile = asam_jax.radius_profile(loss, operator=asam_jax.identity())(w, x, radii)
    >>> print(asam_jax.radius_at(profile, radii, rise=11.0, default=0.5))  # (5 + rho)^2 - 5^2
    1.0
    """
    dtype, finite = profile.rise.dtype, jnp.isfinite(profile.rise)
    increase = isinstance(radii, Tracer) or np.diff(radii, prepend=0).min() > 0
    if np.shape(radii) != np.shape(profile.rise) or not increase:
        raise ValueError(f"radii must be the profile's, increasing from above 0, got {radii}.")
    at = jnp.concatenate([jnp.zeros(1, dtype), jnp.asarray(radii).astype(dtype)])
    rises = jnp.concatenate([jnp.zeros(1, dtype), jnp.where(finite, profile.rise, jnp.inf)])
    target, default = (jnp.asarray(x).astype(dtype) for x in (rise, default))
    reached = rises >= target
    after = jnp.where(jnp.any(reached), jnp.argmax(reached), len(at) - 1)
    ends = jnp.stack([after - 1, after])
    found = jnp.interp(target, rises[ends], at[ends])
    says = jnp.isfinite(profile.loss) & jnp.isfinite(profile.slope) & jnp.any(finite)
    return jnp.where(says, found, default)
