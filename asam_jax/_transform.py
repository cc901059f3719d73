"""The optax link that replaces the gradient at w by the gradient at w + eps, and its aliases."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from asam_jax import _checks, _collectives
from asam_jax._checks import PyTree, Scalar
from asam_jax._collectives import AxisName
from asam_jax._gradient import is_zero
from asam_jax._operators import Operator, elementwise, identity
from asam_jax._perturbation import perturbation

Radius = Scalar | optax.Schedule


class SharpnessAwareState(NamedTuple):
    """State of `sharpness_aware`: the number of updates made, which a schedule of rho reads.

    >>> import asam_jax
    >>> asam_jax.sharpness_aware(rho=0.5).init({})
    SharpnessAwareState(count=Array(0, dtype=int32))
    """

    count: jax.typing.ArrayLike  # pyright: ignore[reportIncompatibleMethodOverride]


def sharpness_aware(
    rho: Radius,
    *,
    operator: Operator | None = None,
    p: Scalar = 2.0,
    axis_name: AxisName = None,
    perturb_axis_name: AxisName = None,
) -> optax.GradientTransformationExtraArgs:
    """Replaces the gradient at w by the gradient at w + eps.

        eps = perturbation(w, updates, rho=rho, operator=operator, p=p)
        updates = grad_fn(w + eps)

    The first link of a chain: gradient clipping, weight decay and the base optimizer come after
    it, so that they act on the gradient at w + eps. `update` takes the keyword `grad_fn`, a
    function from parameters to gradients at the same mini-batch and with the same dropout key:

        tx = optax.chain(
            asam_jax.sharpness_aware(0.5), optax.add_decayed_weights(5e-4), optax.sgd(0.1, 0.9)
        )
        updates, state = tx.update(grads, state, params, grad_fn=grad_fn)

    `optax.apply_if_finite` looks at the updates that it is given, so put it after this link
    (`chain(sharpness_aware(rho), apply_if_finite(base, 5))`): there it sees both passes. Inside
    `optax.MultiSteps` eps is made from the mean gradient of the k mini-batches, but the gradient
    at w + eps is grad_fn's, the last mini-batch's alone, and grad_fn runs at every mini-step;
    to accumulate gradients, accumulate inside grad_fn instead.

    Args:
      rho: the radius, a scalar of at least 0, or an optax schedule (update count -> radius). With
        0 as a Python number (and no axis_name) the gradient passes unchanged and no second one
        is taken.
      operator: T_w, a function from params to scales; None for `elementwise()`. (Under
        `optax.inject_hyperparams`, which takes callables for schedules, name it in
        `static_args=("operator",)`.)
      p: the order of the region's norm, from 1 to infinity.
      axis_name: mapped axis or axes over which the gradient at w + eps is averaged.
      perturb_axis_name: those of the axes over which the gradient that makes eps is averaged
        first. None: each device has its own eps; equal to axis_name: one eps for all.

    Returns:
      A transformation. Its state is a `SharpnessAwareState`, a step count. Other keyword
      arguments of update are ignored, and a chain hands them on.

    Raises:
      ValueError: if rho < 0 or p < 1 (where concrete); in update, if grad_fn or params is
        missing, if structures or shapes differ, or if an axis is not mapped.
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

    def init(params: PyTree) -> SharpnessAwareState:
        del params
        return SharpnessAwareState(count=jnp.zeros([], jnp.int32))

    def update(
        updates: PyTree,
        state: Any,
        params: PyTree | None = None,
        *,
        grad_fn: Callable[[PyTree], PyTree] | None = None,
        **extra_args: Any,
    ) -> tuple[PyTree, SharpnessAwareState]:
        del extra_args
        gradient = _checks.gradient_function(grad_fn)
        _checks.parameters(params)
        _checks.no_placeholders(updates)
        new_state = SharpnessAwareState(count=optax.safe_increment(state.count))
        if is_zero(rho) and axis_name is None:
            return updates, new_state

        _collectives.check_mapped(axis_name)
        _collectives.check_local(updates, axis_name, perturb_axis_name)
        eps = perturbation(
            params,
            _collectives.mean(updates, perturb_axis_name),
            rho=rho(state.count) if callable(rho) else rho,
            operator=operator,
            p=p,
        )
        ascended = _collectives.varying(jax.tree.map(jnp.add, params, eps), axis_name)
        new_updates = gradient(ascended)
        _checks.same_tree(
            "updates", updates, "grad_fn's result", new_updates, dtypes=True, hint=_GRAD_FN_HINT
        )
        return _collectives.mean(new_updates, axis_name), new_state

    return optax.GradientTransformationExtraArgs(init, update)


_GRAD_FN_HINT = " It must return gradients alone: jax.grad(loss), not jax.value_and_grad(loss)."


def asam(
    base: optax.GradientTransformation,
    rho: Radius = 0.5,
    *,
    eta: float | jax.Array = 0.01,
    p: Scalar = 2.0,
    axis_name: AxisName = None,
    perturb_axis_name: AxisName = None,
) -> optax.GradientTransformationExtraArgs:
    """ASAM: `optax.chain(sharpness_aware(rho, operator=elementwise(eta)), base)`.

    Args:
      base: the optimizer that takes the step; weight decay belongs into it.
      rho: the radius or a schedule of it. The authors use 0.5 on CIFAR-10, 1.0 on CIFAR-100.
      eta: stability of the element-wise scales |w| + eta; at least 0.
      p: the order of the region's norm, from 1 to infinity.
      axis_name: see `sharpness_aware`.
      perturb_axis_name: see `sharpness_aware`.

    Returns:
      A transformation whose update takes the keyword `grad_fn`.

    Raises:
      ValueError: if rho < 0, eta < 0 or p < 1 (where concrete).
      TypeError: if base is not an optax transformation.

    >>> import asam_jax, jax, jax.numpy as jnp, optax
    >>> grad_fn = jax.grad(lambda w: jnp.sum(w**2))
    >>> w = jnp.array([3.0, 4.0])
    >>> tx = asam_jax.asam(optax.sgd(0.1), rho=0.5)
    >>> updates, state = tx.update(grad_fn(w), tx.init(w), w, grad_fn=grad_fn)
    >>> print(optax.apply_updates(w, updates).round(4))
    [2.2523 2.8506]

    References:
      Kwon et al., ASAM, 2021.
    """
    _checks.transformation("base", base)
    link = sharpness_aware(
        rho,
        operator=elementwise(eta),
        p=p,
        axis_name=axis_name,
        perturb_axis_name=perturb_axis_name,
    )
    return optax.chain(link, base)


def sam(
    base: optax.GradientTransformation,
    rho: Radius = 0.05,
    *,
    p: Scalar = 2.0,
    axis_name: AxisName = None,
    perturb_axis_name: AxisName = None,
) -> optax.GradientTransformationExtraArgs:
    """SAM: `optax.chain(sharpness_aware(rho, operator=identity()), base)`.

    Args:
      base: the optimizer that takes the step; weight decay belongs into it.
      rho: the radius or a schedule of it, in the parameters' units.
      p: the order of the region's norm, from 1 to infinity.
      axis_name: see `sharpness_aware`.
      perturb_axis_name: see `sharpness_aware`.

    Returns:
      A transformation whose update takes the keyword `grad_fn`.

    Raises:
      ValueError: if rho < 0 or p < 1 (where concrete).
      TypeError: if base is not an optax transformation.

    >>> import asam_jax, jax, jax.numpy as jnp, optax
    >>> grad_fn = jax.grad(lambda w: jnp.sum(w**2))
    >>> w = jnp.array([3.0, 4.0])
    >>> tx = asam_jax.sam(optax.sgd(0.1), rho=0.5)
    >>> updates, state = tx.update(grad_fn(w), tx.init(w), w, grad_fn=grad_fn)
    >>> optax.apply_updates(w, updates)
    Array([2.34, 3.12], dtype=float32)

    References:
      Foret et al., Sharpness-Aware Minimization, 2020.
    """
    _checks.transformation("base", base)
    link = sharpness_aware(
        rho, operator=identity(), p=p, axis_name=axis_name, perturb_axis_name=perturb_axis_name
    )
    return optax.chain(link, base)
