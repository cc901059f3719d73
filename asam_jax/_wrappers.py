"""Wrappers around a base optimizer: for loops that own the gradient call, and decoupled WSAM."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from asam_jax import _checks, _collectives, _operators, _tree, typing
from asam_jax._operators import elementwise
from asam_jax._perturbation import perturbation
from asam_jax._transform import sharpness_aware
from asam_jax.typing import AxisName, Operator, PyTree, Radius, Scalar


def alternating(
    base: optax.GradientTransformation,
    rho: Radius,
    *,
    operator: Operator | None = None,
    p: float | None = None,
    sharded_axis_name: AxisName = None,
) -> optax.GradientTransformationExtraArgs:
    """Moves to w + eps on odd calls of update, back to w and along base's step on even calls.

    For loops that compute the gradient themselves and cannot pass `grad_fn` (Linen's
    `TrainState.apply_gradients`, say), as `optax.contrib.sam` without opaque_mode: call the loop's
    step twice with the same mini-batch and the same dropout key. After an odd number of calls the
    parameters are w + eps: evaluate and save after even ones. Average gradients over devices before
    update.

    A gradient that is not finite, at either call, reaches base as NaN at the second, and eps is 0.
    Let base skip it: `alternating(optax.apply_if_finite(base, 5), rho)`. Under a wrapper that hides
    calls pass the keyword `perturb` to update, True at the first call of a pair and False at the
    second, which is a step of base alone where the first was hidden.

    Args:
      base: the optimizer that takes the step from w, weight decay included.
      rho: the radius, a scalar of at least 0, or an optax schedule of complete steps.
      operator: see `sharpness_aware`, as for p, sharded_axis_name and the errors.

    The state, a `typing.AlternatingState`, holds one copy of the parameters. Updates have the
    parameters' dtype, or the gradient's where that is wider.

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
    """
    base = _checks.base_optimizer(base)
    operator = elementwise() if operator is None else operator
    p = _checks.region(rho, operator, 2.0 if p is None else p, schedule=True)
    axes = _collectives.as_tuple(sharded_axis_name)
    pair = _Pair(base, rho, operator, p, axes)

    def init_fn(params: PyTree) -> typing.AlternatingState:
        return typing.AlternatingState(
            step=jnp.zeros([], jnp.int32),
            perturbed=jnp.zeros([], jnp.bool_),
            # Zeros and not params themselves: both may be donated, and no buffer twice.
            params=optax.tree.zeros_like(params),
            base=base.init(params),
            finite=jnp.ones([], jnp.bool_),
        )

    def update_fn(
        updates: PyTree,
        state: Any,
        params: PyTree | None = None,
        *,
        perturb: Scalar | None = None,
        **extra_args: Any,
    ) -> tuple[PyTree, typing.AlternatingState]:
        _checks.update_arguments(updates, params)
        params = jax.tree.map(jnp.asarray, params)  # Python floats, too
        w = jax.tree.map(lambda old, at: jnp.where(state.perturbed, old, at), state.params, params)

        return _collectives.either(
            jnp.logical_not(state.perturbed) if perturb is None else perturb,
            lambda: pair.first(updates, state, params, w),
            lambda: pair.second(updates, state, params, w, extra_args),
            axes,
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


@dataclasses.dataclass(frozen=True)
class _Pair:
    """The two calls of a step of `alternating`."""

    base: optax.GradientTransformationExtraArgs
    rho: Any
    operator: Operator
    p: float
    axes: _collectives.Axes

    def first(
        self, updates: PyTree, state: Any, params: PyTree, w: PyTree
    ) -> tuple[PyTree, typing.AlternatingState]:
        rho: Any = self.rho(state.step) if callable(self.rho) else self.rho
        eps = perturbation(
            w, updates, rho=rho, operator=self.operator, p=self.p, sharded_axis_name=self.axes
        )
        at = jax.tree.map(jnp.add, w, eps)
        trained = _operators.trained(self.operator, w)
        finite = _tree.all_finite(_tree.where(trained, at), self.axes)
        at = jax.tree.map(lambda a, b: jnp.where(finite, a, b), at, w)
        return _moves(at, params, updates), state._replace(
            perturbed=jnp.ones_like(state.perturbed), params=w, finite=finite
        )

    def second(
        self, updates: PyTree, state: Any, params: PyTree, w: PyTree, extra_args: dict[str, Any]
    ) -> tuple[PyTree, typing.AlternatingState]:
        grads = jax.tree.map(lambda g: jnp.where(state.finite, g, jnp.nan), updates)
        steps, base_state = self.base.update(grads, state.base, w, **extra_args)
        # As the condition needs them: Adam's moments take on a wider gradient's dtype.
        base_state = optax.tree.cast_like(base_state, state.base)
        target = jax.tree.map(lambda a, s: a + s.astype(a.dtype), w, steps)
        return _moves(target, params, updates), state._replace(
            step=optax.safe_increment(state.step),
            perturbed=jnp.zeros_like(state.perturbed),
            base=base_state,
            finite=jnp.ones_like(state.finite),
        )


def _moves(target: PyTree, params: PyTree, updates: PyTree) -> PyTree:
    """Target - params, in the wider of the dtypes of parameters and gradients."""

    def move(to: jax.Array, at: jax.Array, g: jax.Array) -> jax.Array:
        dtype = max(at.dtype, g.dtype, key=lambda dtype: jnp.finfo(dtype).bits)
        moved = to.astype(dtype) - at.astype(dtype)
        return jnp.where(to == at, jnp.zeros_like(moved), moved)  # frozen at -inf, say

    return jax.tree.map(move, target, params, updates)


def decoupled_wsam(
    base: optax.GradientTransformation,
    learning_rate: Scalar | optax.Schedule,
    rho: Radius,
    *,
    gamma: Scalar = 0.9,
    operator: Operator | None = None,
    p: float | None = None,
    axis_name: AxisName = None,
    perturb_axis_name: AxisName = None,
    sharded_axis_name: AxisName = None,
) -> optax.GradientTransformationExtraArgs:
    """Decoupled WSAM (Yue et al. 2023, Algorithm 1): base takes g, sharpness is subtracted.

        updates = base(g) - learning_rate * gamma / (1 - gamma) * (g' - g)

    where g is the gradient at w and g' that at w + eps, as decoupled weight decay is subtracted.
    With plain SGD of that learning rate it is `wsam_descent`.

    Where g or g' is not finite, base is given NaN in place of g, and the second term is left out:
    `optax.apply_if_finite(base, n)` as the base skips the step.

    Args:
      base: the optimizer that takes the step along g: learning rate, clipping, weight decay.
      learning_rate: of the second term, a scalar or an optax schedule; the authors take base's.
      rho: the radius or a schedule of it.
      gamma: the weight of sharpness, in [0, 1); may be traced. 0 is base alone.

    The other arguments, the keywords of update and the errors are those of `sharpness_aware`. The
    state is a `typing.DecoupledState`.

    >>> import asam_jax, optax
    >>> tx = asam_jax.decoupled_wsam(optax.adam(1e-3), learning_rate=1e-3, rho=2.0)
    """
    base = _checks.base_optimizer(base)
    _checks.number("gamma", gamma, 0.0, 1.0)
    operator = elementwise() if operator is None else operator
    second = sharpness_aware(
        rho,
        operator=operator,
        p=p,
        axis_name=axis_name,
        perturb_axis_name=perturb_axis_name,
        sharded_axis_name=sharded_axis_name,
    )
    sharded = _collectives.as_tuple(sharded_axis_name)

    def init_fn(params: PyTree) -> typing.DecoupledState:
        return typing.DecoupledState(step=jnp.zeros([], jnp.int32), base=base.init(params))

    def update_fn(
        updates: PyTree,
        state: Any,
        params: PyTree | None = None,
        *,
        grad_fn: Callable[[PyTree], PyTree] | None = None,
        perturb: Scalar | None = None,
        **extra_args: Any,
    ) -> tuple[PyTree, typing.DecoupledState]:
        new, _ = second.update(
            updates,
            typing.SharpnessAwareState(state.step),
            params,
            grad_fn=grad_fn,
            perturb=perturb,
        )
        grads = _collectives.mean(updates, _collectives.as_tuple(axis_name))
        sharpness = _tree.plus(_tree.widened(new), -1.0, grads)
        sharpness = _tree.where(_operators.trained(operator, params), sharpness)
        finite = _tree.all_finite(sharpness, sharded)
        grads = jax.tree.map(lambda g: jnp.where(finite, g, jnp.nan), grads)
        sharpness = jax.tree.map(lambda s: jnp.where(finite, s, jnp.zeros_like(s)), sharpness)
        steps, base_state = base.update(grads, state.base, params, **extra_args)
        rate = learning_rate(state.step) if callable(learning_rate) else learning_rate
        weight = jnp.asarray(gamma)
        weight = jnp.asarray(rate, weight.dtype) * weight / (1 - weight)
        updates = _tree.plus(steps, -weight, sharpness)
        return updates, typing.DecoupledState(optax.safe_increment(state.step), base_state)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
