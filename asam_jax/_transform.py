"""The optax transformation that replaces the gradient at w by the gradient at w + eps."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from asam_jax import _checks, _collectives, _operators, _tree
from asam_jax._operators import elementwise
from asam_jax._perturbation import perturbation
from asam_jax.typing import AxisName, Descent, Operator, PyTree, Radius, Scalar, SharpnessAwareState

# None in place of a function or a number for `operator`, `p` and `every`:
# optax.inject_hyperparams calls the one as a schedule and traces the other, defaults included.


def sharpness_aware(
    rho: Radius,
    *,
    operator: Operator | None = None,
    p: float | None = None,
    every: int | None = None,
    ascent: optax.GradientTransformation | None = None,
    descent: Descent | None = None,
    axis_name: AxisName = None,
    perturb_axis_name: AxisName = None,
    sharded_axis_name: AxisName = None,
) -> optax.GradientTransformationExtraArgs:
    """Replaces the gradient at w by the gradient at w + eps (Kwon et al. 2021, Algorithm 1).

        eps = perturbation(w, updates, rho=rho, operator=operator, p=p)
        updates = grad_fn(w + eps)

    The first of a chain: gradient clipping, weight decay and the base optimizer come after it, so
    that they act on the gradient at w + eps. `update` takes the keyword `grad_fn`, a function from
    parameters to gradients at the same mini-batch and with the same dropout key:

        tx = optax.chain(
            asam_jax.sharpness_aware(2.0), optax.add_decayed_weights(5e-4), optax.sgd(0.1, 0.9)
        )
        updates, state = tx.update(grads, state, params, grad_fn=grad_fn)

    A step costs two gradients. The keyword `perturb` of update, a boolean, skips the perturbation
    where it is False, and overrules `every`; where it is traced, `jax.lax.cond` decides.

    NaN and inf propagate to the updates. A step whose gradient, at w or at w + eps, is not finite
    leaves the states of `ascent` and `descent` as they were, so that training goes on where
    `optax.apply_if_finite(base, n)`, put behind this transformation, skips the step. Inside
    `optax.MultiSteps` only the last mini-batch would be seen at w + eps: accumulate inside grad_fn.
    The state is a `typing.SharpnessAwareState`.

    Args:
      rho: the radius, a scalar of at least 0, or an optax schedule (update count -> radius). With
        0 as a Python number the gradient at w is returned and no second one is taken.
      operator: T_w, a function from params to scales; None for `elementwise()`.
      p: the order of the region's norm, from 1 to infinity; None for 2.
      every: perturb at every so many steps, a positive integer; the others take the gradient at w
        (`jax.lax.cond`). None for 1. XLA's convolutions on a CPU are some 30 times slower inside a
        condition: there pass `perturb`, a Python boolean, to two jitted steps.
      ascent: a transformation of the gradient into the direction that eps is made from:
        `friendly_ascent(sigma)`, or `optax.ema(0.9)`.
      descent: a rule that combines the gradients at w and at w + eps: `gsam_descent(alpha)`,
        `wsam_descent(gamma)`, `stable_descent()` or, with `every`, `looksam_descent(weight)`.
      axis_name: mapped axis or axes (pmap, shard_map, vmap) over which the returned gradient is
        averaged.
      perturb_axis_name: those of the axes over which the gradient that makes eps is averaged
        first. None: each device has its own eps; equal to axis_name: one eps for all.
      sharded_axis_name: mapped axes that parameters are sharded over. See `perturbation`.

    Raises:
      ValueError: as `perturbation`; if every < 1; in update, if grad_fn or params is missing, an
        axis is not mapped, or the gradient is summed or averaged over an axis in axis_name already.

    >>> import asam_jax, jax, jax.numpy as jnp, optax
    >>> grad_fn = jax.grad(lambda w: jnp.sum(w**2))
    >>> w = jnp.array([3.0, 4.0])
    >>> tx = asam_jax.sharpness_aware(0.5, operator=asam_jax.identity())
    >>> updates, state = tx.update(grad_fn(w), tx.init(w), w, grad_fn=grad_fn)
    >>> updates
    Array([6.6, 8.8], dtype=float32)
    """
    operator = elementwise() if operator is None else operator
    p = _checks.region(rho, operator, 2.0 if p is None else p, schedule=True)
    if not isinstance(every, jax.Array):  # which optax.inject_hyperparams makes of a number
        every = 1 if every is None else _checks.count("every", every, 1)
    names = _collectives.check_names(axis_name, perturb_axis_name, sharded_axis_name)
    step = _Step(rho, operator, p, ascent, descent, *names)

    def init_fn(params: PyTree) -> SharpnessAwareState:
        params = _fast(params)
        rules = [() if rule is None else rule.init(params) for rule in (ascent, descent)]
        return SharpnessAwareState(jnp.zeros([], jnp.int32), *rules)

    def update_fn(
        updates: PyTree,
        state: Any,
        params: PyTree | None = None,
        *,
        grad_fn: Callable[[PyTree], PyTree] | None = None,
        perturb: Scalar | None = None,
        **extra_args: Any,
    ) -> tuple[PyTree, SharpnessAwareState]:
        del extra_args
        if grad_fn is None:
            raise ValueError("grad_fn is missing: pass it to update, or use asam_jax.alternating.")
        _checks.update_arguments(updates, params)
        params = _fast(params)
        _collectives.check_mapped("axis_name", step.axes)
        _collectives.check_own("updates", updates, step.axes)
        if isinstance(rho, (int, float)) and rho == 0:
            perturb = False
        elif perturb is None:
            perturb = True if isinstance(every, int) and every == 1 else state.step % every == 0
        grads = _collectives.mean(updates, step.shared)
        average = None if descent is None else _collectives.mean(grads, step.own_axes)
        new, ascent_state = _collectives.either(
            perturb,
            lambda: step.perturbed(grads, state, params, grad_fn),
            lambda: step.unperturbed(grads, average, state),
            (*step.axes, *step.sharded),
        )
        result, descent_state = step.combined(perturb, average, new, state.descent, params)
        count = optax.safe_increment(state.step)
        return result, SharpnessAwareState(count, ascent_state, descent_state)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


@dataclasses.dataclass(frozen=True)
class _Step:
    """The two kinds of step, each from gradients at w to updates and the states of its rules."""

    rho: Any
    operator: Operator
    p: float
    ascent: optax.GradientTransformation | None
    descent: Descent | None
    axes: _collectives.Axes
    shared: _collectives.Axes
    sharded: _collectives.Axes

    def perturbed(
        self, grads: PyTree, state: Any, params: PyTree, grad_fn: Callable[[PyTree], PyTree]
    ) -> tuple[PyTree, Any]:
        # The gradient that makes eps. Frozen entries are 0 in it: no rule or norm sees them.
        trained = _operators.trained(self.operator, params)
        direction, ascent_state = _tree.where(trained, grads), state.ascent
        both = [direction]
        if self.ascent is not None:
            direction, ascent_state = self.ascent.update(direction, state.ascent, params)
        # The perturbation.
        radius: Any = self.rho(state.step) if callable(self.rho) else self.rho
        eps = perturbation(
            params,
            direction,
            rho=radius,
            operator=self.operator,
            p=self.p,
            sharded_axis_name=self.sharded,
        )
        # The gradient there.
        at = _collectives.vary(jax.tree.map(jnp.add, params, eps), self.axes)
        new = _collectives.mean(_checks.like_updates(grads, grad_fn(at)), self.axes)
        # The state, which takes in no gradient that is not finite.
        both.append(_tree.where(trained, new))
        return new, _tree.if_finite(ascent_state, state.ascent, both, self.sharded)

    def unperturbed(self, grads: PyTree, average: PyTree, state: Any) -> tuple[PyTree, Any]:
        average = _collectives.mean(grads, self.own_axes) if average is None else average
        # Where each device has its own eps, so is the type of the state, in both kinds of step.
        return average, _collectives.vary(state.ascent, self.own_axes)

    def combined(
        self, perturb: Any, grads: PyTree, new: PyTree, state: PyTree, params: PyTree
    ) -> tuple[PyTree, PyTree]:
        # By the rule for both gradients. In a condition of its own: XLA holds what one takes beside
        # what it returns, and in the other also the activations.
        if self.descent is None:
            return new, state
        descent, trained = self.descent, _operators.trained(self.operator, params)
        both = _tree.where(trained, grads), _tree.where(trained, new)

        def yes() -> tuple[PyTree, PyTree]:
            result, after = descent.perturbed(*both, state, self.sharded)
            return result, _tree.if_finite(after, state, both, self.sharded)

        no = lambda: (descent.unperturbed(both[0], state, self.sharded), state)  # noqa: E731
        result, state = _collectives.either(perturb, yes, no, self.sharded)
        return _tree.where(trained, result, new), state

    @property
    def own_axes(self) -> _collectives.Axes:
        """The axes over which each device has its own eps."""
        return tuple(axis for axis in self.axes if axis not in self.shared)


def _fast(params: PyTree) -> PyTree:
    """The parameters that optax.lookahead, as the base, wants gradients at."""
    return params.fast if isinstance(params, optax.LookaheadParams) else params
