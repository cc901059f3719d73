"""The optax link that replaces the gradient at w by the gradient at w + eps."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from asam_jax import _checks, _collectives, _schedules
from asam_jax._branches import choose
from asam_jax._checks import PyTree, Scalar
from asam_jax._collectives import AxisName
from asam_jax._containers import rebuilt
from asam_jax._descent import Descent
from asam_jax._gradient import ascended, is_zero
from asam_jax._operators import Operator, elementwise

Radius = Scalar | optax.Schedule
"""rho: a scalar of at least 0, or an optax schedule, from the count of updates to such a scalar."""


class SharpnessAwareState(NamedTuple):
    """State of `sharpness_aware`.

    Attributes:
      count: the number of updates made, which schedules of rho and every read.
      ascent: the state of the transformation `ascent`; () without one.
      descent: the state of the rule `descent`; () without one.

    >>> import asam_jax
    >>> asam_jax.sharpness_aware(rho=0.5).init({})
    SharpnessAwareState(count=Array(0, dtype=int32), ascent=(), descent=())
    """

    count: jax.typing.ArrayLike  # pyright: ignore[reportIncompatibleMethodOverride]
    ascent: Any = ()
    descent: Any = ()


def sharpness_aware(
    rho: Radius,
    *,
    operator: Operator | None = None,
    p: Scalar = 2.0,
    axis_name: AxisName = None,
    perturb_axis_name: AxisName = None,
    every: Scalar | optax.Schedule = 1,
    ascent: optax.GradientTransformation | None = None,
    descent: Descent | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Replaces the gradient at w by the gradient at w + eps.

        eps = perturbation(w, updates, rho=rho, operator=operator, p=p)
        updates = grad_fn(w + eps)

    The first link of a chain: gradient clipping, weight decay and the base optimizer come after
    it, so that they act on the gradient at w + eps. `update` takes the keyword `grad_fn`, a
    function from parameters to gradients at the same mini-batch and with the same dropout key
    (in the containers of grads, or the same leaves in others, as nnx.grad has them):

        tx = optax.chain(
            asam_jax.sharpness_aware(0.5), optax.add_decayed_weights(5e-4), optax.sgd(0.1, 0.9)
        )
        updates, state = tx.update(grads, state, params, grad_fn=grad_fn)

    `optax.apply_if_finite` looks at the updates that it is given, so put it after this link
    (`chain(sharpness_aware(rho), apply_if_finite(base, 5))`): there it sees both passes. Inside
    `optax.MultiSteps` eps is made from the mean gradient of the k mini-batches, but the gradient
    at w + eps is grad_fn's, the last mini-batch's alone, and grad_fn runs at every mini-step;
    to accumulate gradients, accumulate inside grad_fn instead.

    A step costs two gradients. Cheaper: climb at every k-th step only (`every`), or hand in the
    gradient of a part of the mini-batch, since grads only make eps (then leave `every` and
    `descent` out); `momentum_ascent` needs one gradient alone.

    Args:
      rho: the radius, a scalar of at least 0, or an optax schedule (update count -> radius). With
        0 as a Python number (and no axis_name) the gradient passes unchanged and no second one
        is taken. Where a schedule falls below 0 unseen, eps points downhill: nothing is clamped.
      operator: T_w, a function from params to scales; None for `elementwise()`. (Under
        `optax.inject_hyperparams`, which takes callables for schedules, name it in
        `static_args=("operator",)`.)
      p: the order of the region's norm, from 1 to infinity.
      axis_name: mapped axis or axes over which the gradient at w + eps is averaged.
      perturb_axis_name: those of the axes over which the gradient that makes eps is averaged
        first. None: each device has its own eps; equal to axis_name: one eps for all.
      every: climb at every so many steps, a positive integer or an optax schedule (update count
        -> integer, below 1 not at all); between, descend along the gradient at w and take no
        second one (`jax.lax.cond`). The keyword `climb` of update overrules it: a traced boolean
        chooses while running, one with a value while tracing, which spares the condition. XLA's
        convolutions on a CPU are some 30 times slower inside one: there call a step jitted for
        each of the two.
      ascent: a transformation of the gradient into the direction that eps is made from, used at
        the steps that climb: `friendly_ascent(sigma)`, or `optax.ema(0.9)` to steady the gradient
        of a small part of the mini-batch. Where each device has its own eps, so has this state.
      descent: a rule that combines the gradients at w and at w + eps: `gsam_descent(alpha)`,
        `wsam_descent(gamma)`, `stable_descent()` or, with `every`, `look_descent(weight)`. It sees
        both averaged over axis_name, which takes two reductions instead of one where each device
        has its own eps.

    Returns:
      A transformation. Its state is a `SharpnessAwareState`: a step count, and what ascent and
      descent keep. Other keyword arguments of update are ignored, and a chain hands them on.

    Raises:
      ValueError: if rho < 0, p < 1 or every < 1 (where concrete; of a schedule of rho in init, its
        start, and the end of optax's own); in update, if grad_fn or params is missing, if
        structures or shapes differ, or if an axis is not mapped.
      TypeError: if grad_fn returns gradients of another dtype.

    >>> import asam_jax, jax, jax.numpy as jnp, optax
    >>> grad_fn = jax.grad(lambda w: jnp.sum(w**2))
    >>> w = jnp.array([3.0, 4.0])
    >>> tx = asam_jax.sharpness_aware(0.5, operator=asam_jax.identity())
    >>> updates, state = tx.update(grad_fn(w), tx.init(w), w, grad_fn=grad_fn)
    >>> updates
    Array([6.6, 8.8], dtype=float32)

    References:
      Kwon et al., ASAM, 2021, Algorithm 1.
    """
    if not callable(rho):
        _checks.radius(rho)
    _checks.norm_order(p)
    operator = elementwise() if operator is None else operator
    _checks.function("operator", operator)
    _collectives.check_axes(axis_name, perturb_axis_name)
    if not callable(every):
        _checks.period(every)
    if ascent is not None:
        _checks.transformation("ascent", ascent)
    _checks.rule("descent", descent)

    def init(params: PyTree) -> SharpnessAwareState:
        _schedules.check_radius(rho)
        params = _fast(params)
        _checks.no_pairs(params)
        return SharpnessAwareState(
            count=jnp.zeros([], jnp.int32),
            ascent=() if ascent is None else ascent.init(params),
            descent=() if descent is None else descent.init(params),
        )

    def update(
        updates: PyTree,
        state: Any,
        params: PyTree | None = None,
        *,
        grad_fn: Callable[[PyTree], PyTree] | None = None,
        climb: Scalar | None = None,
        **extra_args: Any,
    ) -> tuple[PyTree, SharpnessAwareState]:
        del extra_args
        gradient = _checks.gradient_function(grad_fn)
        _checks.parameters(params)
        params = _fast(params)
        _checks.no_placeholders(updates)
        new_state = state._replace(count=optax.safe_increment(state.count))
        if is_zero(rho) and axis_name is None:
            return updates, new_state
        _collectives.check_mapped(axis_name)
        _collectives.check_local(updates, axis_name, perturb_axis_name)

        def ascend() -> tuple[PyTree, SharpnessAwareState]:
            shared = direction = _collectives.mean(updates, perturb_axis_name)
            ascent_state, descent_state = state.ascent, state.descent
            if ascent is not None:
                direction, ascent_state = ascent.update(shared, ascent_state, params)
            radius = rho(state.count) if callable(rho) else rho
            at = ascended(params, direction, axis_name, rho=radius, operator=operator, p=p)
            new = rebuilt(updates, _called(gradient, at))
            _checks.same_tree(
                "updates", updates, "grad_fn's result", new, dtypes=True, hint=_GRAD_FN_HINT
            )
            new = _collectives.mean(new, axis_name)
            if descent is not None:
                rest = _collectives.without(axis_name, perturb_axis_name)
                grads = _collectives.mean(shared, rest)
                new, descent_state = descent.ascended(grads, new, descent_state)
            return new, new_state._replace(ascent=ascent_state, descent=descent_state)

        def stay() -> tuple[PyTree, SharpnessAwareState]:
            grads = _collectives.mean(updates, axis_name)
            return grads if descent is None else descent.between(grads, state.descent), new_state

        if climb is None:
            return choose("every", _due(every, state.count), ascend, stay)
        return choose("climb", climb, ascend, stay)

    return optax.GradientTransformationExtraArgs(init, update)


_GRAD_FN_HINT = " It must return gradients alone: jax.grad(loss), not jax.value_and_grad(loss)."


def _fast(params: PyTree) -> PyTree:
    """The parameters that optax.lookahead wants gradients at, where it comes later in a chain."""
    return params.fast if isinstance(params, optax.LookaheadParams) else params


def _due(every: Scalar | optax.Schedule, count: Any) -> Any:
    """Whether this is one of every so many steps; none where a schedule gives less than one."""
    period = every(count) if callable(every) else every
    if isinstance(period, int) and period == 1:
        return True
    period = jnp.asarray(period)
    whole = jnp.issubdtype(period.dtype, jnp.integer)
    period = period.astype(jnp.result_type(count)) if whole else period
    least = jnp.maximum(period, jnp.ones_like(period))
    return (period >= 1) & (jnp.asarray(count).astype(least.dtype) % least == 0)


def _called(grad_fn: Callable[[PyTree], PyTree], params: PyTree) -> PyTree:
    try:
        return grad_fn(params)
    except Exception as error:
        if jax.tree_util.all_leaves([params]) and jnp.ndim(params) == 1:
            error.add_note(
                f"grad_fn was called with a single vector of {jnp.size(params)} entries. If your "
                "parameters are a tree, optax.flatten stands around the sharpness-aware link; put "
                "it around the base alone: asam_jax.asam(optax.flatten(base))."
            )
        raise
