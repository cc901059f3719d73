"""The gradient that a step descends along, for each form of ascent."""

from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import optax

import asam_jax
from experiments.config.step_forms import EXACT, STEP_FORMS, StepForm
from experiments.training import reused_direction
from experiments.training.spec import StepSpec


class Held(Protocol):
    """What a form reads of a training state."""

    @property
    def params(self) -> Any: ...
    @property
    def rest(self) -> Any: ...
    @property
    def opt_state(self) -> Any: ...
    @property
    def memory(self) -> Any: ...


# (params, rest) -> (loss, auxiliary output)
LossFn = Callable[[Any, Any], tuple[jax.Array, Any]]
_DESCENTS = {
    "look": asam_jax.look_descent,
    "gsam": asam_jax.gsam_descent,
    "wsam": asam_jax.wsam_descent,
}


def init(spec: StepSpec, params: Any) -> Any:
    """What a form remembers from step to step; nothing for most."""
    form = STEP_FORMS[spec.variant]
    if form.reuses_direction:
        return reused_direction.init(params)
    if form.remembers is not None:
        return asam_jax.remember(form.remembers).init(params)
    if form.steady is not None:
        return _steady(form.steady).init(params)
    if spec.variant == EXACT or form.one_gradient or form.part > 1:
        return ()
    return _link(spec, form, 0.0, 0.0).init(params)


def gradient(
    spec: StepSpec, state: Held, hyper, loss_fn: LossFn, part_fn: LossFn, climb: Any = True
) -> tuple[tuple[jax.Array, Any], Any, Any]:
    """((loss, aux), gradient, what is remembered).

    Loss, statistics and accuracy are those of the first, unperturbed pass over the whole batch;
    forms that have none give those at w + eps. `part_fn` is the loss of a part of the batch, and
    `climb` says whether this step climbs, where not all do.
    """
    form = STEP_FORMS[spec.variant]
    if spec.recipe == "script" and spec.method != "sgd":
        return *_with_both_statistics(spec, state, hyper.rho, loss_fn), state.memory
    if spec.method == "sgd" or spec.variant == EXACT:
        return *_exact(spec, loss_fn, hyper.rho)(state.params, state.rest), state.memory
    if form.reuses_direction:
        return reused_direction.gradient(
            state.memory,
            state.params,
            lambda params: loss_fn(params, state.rest),
            lambda grads: asam_jax.perturbation(state.params, grads, **_region(spec, hyper.rho)),
            climb,
        )
    if form.one_gradient or form.part > 1:
        return _at_another_direction(spec, form, state, hyper.rho, loss_fn, part_fn)
    result, grads = jax.value_and_grad(loss_fn, has_aux=True)(state.params, state.rest)
    updates, memory = _link(spec, form, hyper.rho, hyper.weight).update(
        grads,
        state.memory,
        state.params,
        grad_fn=lambda params: jax.grad(loss_fn, has_aux=True)(params, state.rest)[0],
        climb=climb,
    )
    return result, updates, memory


def _at_another_direction(spec, form: StepForm, state: Held, rho, loss_fn, part_fn):
    """One pass over the whole batch, at w + eps along something cheaper than its gradient at w."""
    memory: Any = state.memory
    how = _region(spec, rho)
    if form.part > 1:
        direction = jax.grad(part_fn, has_aux=True)(state.params, state.rest)[0]
        if form.steady is not None:
            direction, memory = _steady(form.steady).update(direction, memory)
        if form.remembers is not None:
            direction = jax.tree.map(jnp.add, direction, memory.direction)
        source = (asam_jax.RememberState(direction), state.opt_state)
    else:
        source = (memory, state.opt_state)
    how |= dict(sign=form.momentum or 1, contrast=form.contrast)
    at = asam_jax.momentum_ascent(state.params, source, **how)
    result, grads = jax.value_and_grad(loss_fn, has_aux=True)(at, state.rest)
    if form.remembers is not None:
        _, memory = asam_jax.remember(form.remembers).update(grads, memory)
    return result, grads, memory


def _region(spec: StepSpec, rho) -> dict[str, Any]:
    """What eps is confined to, as arguments of asam_jax."""
    return dict(rho=rho, operator=operator_of(spec), p=spec.p)


def operator_of(spec: StepSpec) -> Any:
    """The normalization operator that the spec names."""
    if spec.normalization == "identity":
        return asam_jax.identity()
    adapt = {"not_bias": asam_jax.not_bias, "all": asam_jax.all_leaves}[spec.adapt]
    make = {"elementwise": asam_jax.elementwise, "filterwise": asam_jax.filterwise}
    return make[spec.normalization](spec.eta, adapt=adapt)


def _exact(spec: StepSpec, loss_fn: LossFn, rho: jax.Array) -> Callable[..., Any]:
    axis = spec.axis_name
    if spec.method == "sgd":
        return asam_jax.value_and_grad(loss_fn, rho=0.0, has_aux=True, axis_name=axis)
    return asam_jax.value_and_grad(
        loss_fn,
        rho=rho,
        operator=operator_of(spec),
        p=spec.p,
        has_aux=True,
        axis_name=axis,
        perturb_axis_name=axis if spec.perturb == "all" else None,
    )


def _with_both_statistics(spec: StepSpec, state: Held, rho, loss_fn: LossFn):
    """As `_exact`, but BatchNorm's statistics move in both passes, as in the authors' script."""
    (loss, (rest, correct)), grads = jax.value_and_grad(loss_fn, has_aux=True)(
        state.params, state.rest
    )
    eps = asam_jax.perturbation(state.params, grads, **_region(spec, rho))
    at = jax.tree.map(jnp.add, state.params, eps)
    grads, (rest, _) = jax.grad(loss_fn, has_aux=True)(at, rest)
    return (loss, (rest, correct)), grads


def _link(spec: StepSpec, form: StepForm, rho, weight) -> optax.GradientTransformationExtraArgs:
    return asam_jax.sharpness_aware(
        jnp.asarray(rho),
        operator=operator_of(spec),
        p=spec.p,
        ascent=asam_jax.friendly_ascent() if form.friendly else None,
        descent=_DESCENTS[form.descent](weight) if form.descent else None,
    )


def _steady(decay: float) -> optax.GradientTransformation:
    # eps does not depend on the direction's length, so its bias needs no correction.
    return optax.ema(decay, debias=False)
