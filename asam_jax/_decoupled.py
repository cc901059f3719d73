"""Sharpness as a regularizer that passes by the base optimizer."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from asam_jax import _checks, _collectives, _vectors
from asam_jax._checks import PyTree, Scalar
from asam_jax._collectives import AxisName
from asam_jax._extras import without_own
from asam_jax._operators import Operator
from asam_jax._reductions import every
from asam_jax._transform import Radius, SharpnessAwareState, sharpness_aware


class DecoupledState(NamedTuple):
    """State of `decoupled_wsam`.

    Attributes:
      count: the number of updates made, which schedules of rho and learning_rate read.
      base: the base optimizer's state.

    >>> import asam_jax, jax.numpy as jnp, optax
    >>> asam_jax.decoupled_wsam(optax.sgd(0.1), 0.1, rho=0.5).init(jnp.ones(2)).count
    Array(0, dtype=int32)
    """

    count: jax.typing.ArrayLike  # pyright: ignore[reportIncompatibleMethodOverride]
    base: optax.OptState


def decoupled_wsam(
    base: optax.GradientTransformation,
    learning_rate: Scalar | optax.Schedule,
    rho: Radius,
    *,
    gamma: Scalar = 0.9,
    operator: Operator | None = None,
    p: Scalar = 2.0,
    axis_name: AxisName = None,
    perturb_axis_name: AxisName = None,
) -> optax.GradientTransformationExtraArgs:
    """WSAM, decoupled: base descends the loss, and sharpness is taken off past it.

        updates = base(g) - learning_rate * gamma / (1 - gamma) * (g' - g)

    where g is the gradient at w and g' that at w + eps. The second term is the gradient of the
    sharpness L(w + eps) - L(w), as decoupled weight decay is that of a norm: base keeps no momentum
    of it and does not divide it. With plain SGD of that learning rate it is `wsam_descent`. It
    costs two gradients.

    Gradient clipping and weight decay belong into base, and act on g. Where g' is not finite, base
    is handed NaN in place of g, and the second term is left out: so NaN comes out, unless base is
    `optax.apply_if_finite(base, n)`, which leaves out the step.

    Args:
      base: the optimizer that takes the step along g, its learning rate included.
      learning_rate: of the second term, a scalar or an optax schedule (update count -> scalar):
        the authors take base's.
      rho: the radius, a scalar of at least 0, or an optax schedule of the update count.
      gamma: the weight of sharpness, a scalar of at least 0 and less than 1; may be traced. 0 is
        base alone. The authors' default is 0.9, so that the second term counts nine times.
      operator: T_w, a function from params to scales; None for `elementwise()`.
      p: the order of the region's norm, from 1 to infinity.
      axis_name: see `sharpness_aware`; both gradients are averaged over it.
      perturb_axis_name: see `sharpness_aware`.

    Returns:
      A transformation whose update takes the keywords of `sharpness_aware`'s; others go to base.
      Its state is a `DecoupledState`: a step count, and base's.

    Raises:
      ValueError: if gamma is not in [0, 1), rho < 0 or p < 1 (where concrete); in update, as
        `sharpness_aware`.
      TypeError: if base is not an optax transformation.

    >>> import asam_jax, jax, jax.numpy as jnp, numpy as np, optax
    >>> grad_fn = jax.grad(lambda w: jnp.sum(w**2))
    >>> w = jnp.array([3.0, 4.0])
    >>> sam = dict(rho=0.5, operator=asam_jax.identity())
    >>> tx = asam_jax.decoupled_wsam(optax.adam(0.1), 0.1, **sam, gamma=0.75)
    >>> updates, _ = tx.update(grad_fn(w), tx.init(w), w, grad_fn=grad_fn)
    >>> print(np.asarray(updates).round(3))
    [-0.28 -0.34]

    References:
      Yue et al., Sharpness-Aware Minimization Revisited: Weighted Sharpness as a Regularization
      Term, 2023, Algorithm 1.
    """
    _checks.transformation("base", base)
    _checks.at_least("gamma", gamma, 0.0)
    _checks.below("gamma", gamma, 1.0)
    base = without_own(base)
    link = sharpness_aware(
        rho, operator=operator, p=p, axis_name=axis_name, perturb_axis_name=perturb_axis_name
    )

    def init(params: PyTree) -> DecoupledState:
        counted: Any = link.init(params)
        return DecoupledState(count=counted.count, base=base.init(params))

    def update(
        updates: PyTree,
        state: Any,
        params: PyTree | None = None,
        *,
        grad_fn: Callable[[PyTree], PyTree] | None = None,
        climb: Scalar | None = None,
        **extra_args: Any,
    ) -> tuple[PyTree, DecoupledState]:
        counted: Any = SharpnessAwareState(count=state.count)
        ascended, counted = link.update(updates, counted, params, grad_fn=grad_fn, climb=climb)
        grads = _collectives.mean(updates, axis_name)
        sharpness = _vectors.plus(_vectors.widened(ascended), -1.0, grads)
        finite = every([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(sharpness)])
        grads = jax.tree.map(lambda g: jnp.where(finite, g, jnp.full_like(g, jnp.nan)), grads)
        sharpness = jax.tree.map(lambda s: jnp.where(finite, s, jnp.zeros_like(s)), sharpness)

        steps, base_state = base.update(
            grads, state.base, params, grad_fn=grad_fn, climb=climb, **extra_args
        )
        rate = learning_rate(state.count) if callable(learning_rate) else learning_rate
        weight = jnp.asarray(gamma)
        weight = jnp.asarray(rate, weight.dtype) * weight / (1 - weight)
        return _vectors.plus(steps, -weight, sharpness), DecoupledState(counted.count, base_state)

    return optax.GradientTransformationExtraArgs(init, update)
