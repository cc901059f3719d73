"""Sharpness-aware steps for training loops that own the gradient call."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from asam_jax import _checks
from asam_jax._checks import PyTree, Scalar
from asam_jax._operators import Operator, elementwise
from asam_jax._perturbation import perturbation
from asam_jax._transform import Radius


class AlternatingState(NamedTuple):
    """State of `alternating`.

    Attributes:
      count: complete steps (pairs of update calls) made, a scalar.
      ascended: whether the parameters stand at w + eps, a boolean scalar.
      params: w while the parameters stand at w + eps; otherwise of no meaning.
      base: the base optimizer's state.

    >>> import asam_jax, jax.numpy as jnp, optax
    >>> asam_jax.alternating(optax.sgd(0.1), rho=0.5).init(jnp.ones(2)).ascended
    Array(False, dtype=bool)
    """

    count: jax.typing.ArrayLike  # pyright: ignore[reportIncompatibleMethodOverride]
    ascended: jax.Array
    params: PyTree
    base: optax.OptState


def alternating(
    base: optax.GradientTransformation,
    rho: Radius,
    *,
    operator: Operator | None = None,
    p: Scalar = 2.0,
) -> optax.GradientTransformationExtraArgs:
    """Climbs by eps on odd calls of update, returns to w and takes base's step on even calls.

    For loops that compute the gradient themselves and cannot hand over `grad_fn` (Linen's
    `TrainState.apply_gradients`, say): call the loop's step twice with the same mini-batch and
    the same dropout key. After an odd number of calls the parameters are w + eps: evaluate and
    save after even ones. The return to w is exact up to the rounding of the parameters' dtype,
    since all that a transformation can do is add. Where grad_fn can be had, `sharpness_aware`
    is better: it keeps no copy of the parameters.

    Args:
      base: the optimizer that takes the step from w; weight decay belongs into it.
      rho: the radius, a scalar of at least 0, or an optax schedule of complete steps.
      operator: T_w, a function from params to scales; None for `elementwise()`.
      p: the order of the region's norm, from 1 to infinity.

    Returns:
      A transformation. Its state, an `AlternatingState`, holds one copy of the parameters.
      Keyword arguments of update go to base.

    Raises:
      ValueError: if rho < 0 or p < 1 (where concrete), or if update gets no params.
      TypeError: if base is not an optax transformation.

    >>> import asam_jax, jax, jax.numpy as jnp, optax
    >>> grad_fn = jax.grad(lambda w: jnp.sum(w**2))
    >>> w = jnp.array([3.0, 4.0])
    >>> tx = asam_jax.alternating(optax.sgd(0.1), rho=0.5, operator=asam_jax.identity())
    >>> state = tx.init(w)
    >>> for _ in range(2):
    ...     updates, state = tx.update(grad_fn(w), state, w)
    ...     w = optax.apply_updates(w, updates)
    >>> w
    Array([2.34, 3.12], dtype=float32)

    References:
      Kwon et al., ASAM, 2021; the mode of `optax.contrib.sam` without opaque_mode.
    """
    _checks.transformation("base", base)
    if not callable(rho):
        _checks.radius(rho)
    _checks.norm_order(p)
    operator = elementwise() if operator is None else operator
    _checks.function("operator", operator)
    base = optax.with_extra_args_support(base)

    def init(params: PyTree) -> AlternatingState:
        return AlternatingState(
            count=jnp.zeros([], jnp.int32),
            ascended=jnp.zeros([], jnp.bool_),
            # Zeros and not params themselves: both may be donated, and no buffer twice.
            params=optax.tree.zeros_like(params),
            base=base.init(params),
        )

    def update(
        updates: PyTree, state: Any, params: PyTree | None = None, **extra_args: Any
    ) -> tuple[PyTree, AlternatingState]:
        _checks.parameters(params)
        _checks.no_placeholders(updates)

        def climb() -> tuple[PyTree, AlternatingState]:
            radius = rho(state.count) if callable(rho) else rho
            eps = perturbation(params, updates, rho=radius, operator=operator, p=p)
            ascended = jnp.ones_like(state.ascended)
            return cast_like(eps), state._replace(ascended=ascended, params=params)

        def descend() -> tuple[PyTree, AlternatingState]:
            steps, base_state = base.update(updates, state.base, state.params, **extra_args)
            target = optax.apply_updates(state.params, steps)
            back = jax.tree.map(jnp.subtract, target, params)
            return cast_like(back), AlternatingState(
                count=optax.safe_increment(state.count),
                ascended=jnp.zeros_like(state.ascended),
                params=state.params,
                base=base_state,
            )

        def cast_like(tree: PyTree) -> PyTree:
            return jax.tree.map(lambda x, u: x.astype(jnp.result_type(u)), tree, updates)

        return jax.lax.cond(state.ascended, descend, climb)

    return optax.GradientTransformationExtraArgs(init, update)
