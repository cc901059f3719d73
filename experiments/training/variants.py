"""The variants of a sharpness-aware step, by name: what each is, and its gradient.

A new variant is an entry of `VARIANTS`, and a branch of `gradient` where none computes it yet.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

import asam_jax
from experiments.config.run import Run
from experiments.training.spec import Hyper, StepSpec, TrainState


@dataclasses.dataclass(frozen=True)
class Variant:
    """What a variant does differently from exact ASAM (or SAM)."""

    text: str
    every: int = 1  # perturbs at every so many steps
    during: tuple[float, float] = (0.0, 1.0)  # and in this share of the training only
    subset: int = 1  # perturbs along the gradient of 1 / subset of the batch
    remembers: float | None = None  # decay of the average of last gradients, alone or with a subset
    contrast: float = 0.0  # how much of the momentum is taken away from the direction
    momentum: int = 0  # one gradient a step, along sign * the optimizer's momentum
    descent: Callable[..., Any] | None = None  # a rule of asam_jax, with the run's weight
    friendly: bool = False  # perturbs along the batch's own part of the gradient
    budget: bool = False  # rho from what the linearised loss rises by, the run's weight

    @property
    def one_gradient(self) -> bool:
        """Whether a step takes no gradient at w."""
        return self.momentum != 0 or (self.remembers is not None and self.subset == 1)

    @property
    def gradients(self) -> float:
        """Gradients of a whole batch that a step costs, at most."""
        if self.one_gradient:
            return 1.0
        start, end = self.during
        return 1.0 + (end - start) / (self.subset * self.every)

    def perturbs(self, step, total):
        """Whether a step, counted from 0, of so many takes a second gradient; may be traced."""
        if self.every == 1 and self.during == (0.0, 1.0):
            return True
        start, end = self.during
        return (step % self.every == 0) & (start * total <= step) & (step < end * total)


EXACT = "exact"
# The rule of the authors' code, which the paper's radii belong to.
AUTHORS = asam_jax.elementwise(0.01, adapt=asam_jax.not_bias)
_EARLY, _LATE = (0.0, 0.25), (0.75, 1.0)
_LOOK, _GSAM, _WSAM = asam_jax.looksam_descent, asam_jax.gsam_descent, asam_jax.wsam_descent
VARIANTS = {
    EXACT: Variant("two gradients"),
    "every4": Variant("perturbs at every 4th step", every=4),
    "every16": Variant("perturbs at every 16th step", every=16),
    "early": Variant("perturbs in the first quarter", during=_EARLY),
    "late": Variant("perturbs in the last quarter", during=_LATE),
    "early4": Variant("perturbs at every 4th step of the first quarter", every=4, during=_EARLY),
    "late4": Variant("perturbs at every 4th step of the last quarter", every=4, during=_LATE),
    "look4": Variant("LookSAM, k = 4", every=4, descent=_LOOK),
    "look16": Variant("LookSAM, k = 16", every=16, descent=_LOOK),
    "part4": Variant("along the gradient of 1/4 of the batch", subset=4),
    "part16": Variant("along the gradient of 1/16 of the batch", subset=16),
    "part16-last": Variant(
        "along 1/16 of the batch plus the last gradient", subset=16, remembers=0.0
    ),
    "part16-last-friendly": Variant(
        "along 1/16 of the batch plus the last gradient, less the momentum",
        subset=16,
        remembers=0.0,
        contrast=0.1,
    ),
    "momentum": Variant("along the momentum", momentum=1),
    "momentum-ahead": Variant("against the momentum (momentum-SAM)", momentum=-1),
    "last": Variant("along the last gradient", remembers=0.0),
    "last-friendly": Variant(
        "along the last gradient less the momentum", remembers=0.0, contrast=0.1
    ),
    "remember": Variant("along an average of the last gradients", remembers=0.7),
    "gsam": Variant("GSAM", descent=_GSAM),
    "wsam": Variant("WSAM", descent=_WSAM),
    "friendly": Variant("Friendly SAM", friendly=True),
    "le-sam": Variant("LE-SAM", budget=True),
}
_ANNEALED = 0.2  # of the training, at its end, over which LE-SAM's weight falls to 0
# (params, rest) -> (loss, auxiliary output)
LossFn = Callable[[Any, Any], tuple[jax.Array, Any]]


def gradients_per_step(method: str, variant: str = EXACT) -> float:
    """Gradients of a whole batch that a step of a method costs."""
    return 1.0 if method == "sgd" else VARIANTS[variant].gradients


def init(spec: StepSpec, params: Any) -> Any:
    """What a variant remembers from step to step; nothing for most."""
    variant = VARIANTS[spec.run.variant]
    if variant.remembers is not None:
        return asam_jax.remember(variant.remembers).init(params)
    if spec.run.variant == EXACT or variant.one_gradient or variant.subset > 1 or variant.budget:
        return ()
    return _transformation(spec, variant, 0.0, 0.0).init(params)


def at_step(spec: StepSpec, hyper: Hyper, step: jax.Array) -> Hyper:
    """The hyper-parameters of a step; LE-SAM's weight falls to 0 along a cosine at the end."""
    if not VARIANTS[spec.run.variant].budget:
        return hyper
    left = jnp.clip((1 - step / hyper["total_steps"]) / _ANNEALED, 0.0, 1.0)
    return hyper | {"weight": hyper["weight"] * 0.5 * (1 - jnp.cos(jnp.pi * left))}


def gradient(
    spec: StepSpec,
    state: TrainState,
    hyper: Hyper,
    loss_fn: LossFn,
    subset_fn: LossFn,
    perturb: Any = True,
) -> tuple[tuple[jax.Array, Any], Any, Any]:
    """((loss, aux), gradient, what is remembered).

    Loss, statistics and accuracy are those of the first, unperturbed pass over the whole batch;
    variants that have none give those at w + eps. `subset_fn` is the loss of a subset of the
    batch, and `perturb` says whether this step perturbs, where not all do.
    """
    run, variant, rho = spec.run, VARIANTS[spec.run.variant], hyper["rho"]
    if run.method == "sgd" or run.variant == EXACT:
        axis = spec.axis_name
        region: dict[str, Any] = dict(rho=0.0) if run.method == "sgd" else _region(run, rho)
        region |= dict(axis_name=axis, perturb_axis_name=axis if run.perturb == "all" else None)
        step_gradient = asam_jax.value_and_grad(loss_fn, has_aux=True, **region)
        return *step_gradient(state.params, state.rest), state.memory
    if variant.budget:
        return *_within_budget(spec, state, hyper, loss_fn), state.memory
    if variant.one_gradient or variant.subset > 1:
        return _at_another_direction(spec, variant, state, rho, loss_fn, subset_fn)
    result, grads = jax.value_and_grad(loss_fn, has_aux=True)(state.params, state.rest)
    updates, memory = _transformation(spec, variant, rho, hyper["weight"]).update(
        grads,
        state.memory,
        state.params,
        grad_fn=lambda params: jax.grad(loss_fn, has_aux=True)(params, state.rest)[0],
        perturb=perturb,
    )
    return result, updates, memory


def _region(run: Run, rho) -> dict[str, Any]:
    """What eps is confined to, as arguments of asam_jax."""
    operator = asam_jax.identity()
    if run.normalization != "identity":
        adapt = {"not_bias": asam_jax.not_bias, "all": asam_jax.all_leaves}[run.adapt]
        make = {"elementwise": asam_jax.elementwise, "filterwise": asam_jax.filterwise}
        operator = make[run.normalization](run.eta, adapt=adapt)
    return dict(rho=rho, operator=operator, p=run.p)


def _within_budget(spec: StepSpec, state: TrainState, hyper: Hyper, loss_fn: LossFn):
    """LE-SAM, arXiv 2605.10183: rho = min(weight / ||T_w g||_q, the run's rho)."""
    result, grads = jax.value_and_grad(loss_fn, has_aux=True)(state.params, state.rest)
    unit = asam_jax.perturbation(state.params, grads, **_region(spec.run, 1.0))
    slope = jnp.maximum(optax.tree.vdot(grads, unit), jnp.finfo(jnp.float32).tiny)
    rho = jnp.minimum(hyper["weight"] / slope, hyper["rho"])
    at = jax.tree.map(lambda w, e: w + rho * e, state.params, unit)
    return result, jax.grad(loss_fn, has_aux=True)(at, state.rest)[0]


def _at_another_direction(spec, variant: Variant, state: TrainState, rho, loss_fn, subset_fn):
    """One pass over the whole batch, at w + eps along something cheaper than its gradient at w."""
    memory: Any = state.memory
    if variant.subset > 1:
        direction = jax.grad(subset_fn, has_aux=True)(state.params, state.rest)[0]
        if variant.remembers is not None:
            direction = jax.tree.map(jnp.add, direction, memory.direction)
    elif variant.momentum:
        direction = optax.tree.scale(variant.momentum, _momentum(state.opt_state))
    else:
        direction = memory.direction
    if variant.contrast:
        share = -variant.contrast
        direction = optax.tree.add_scale(direction, share, _momentum(state.opt_state))
    at = asam_jax.momentum_ascent(state.params, direction, **_region(spec.run, rho))
    result, grads = jax.value_and_grad(loss_fn, has_aux=True)(at, state.rest)
    if variant.remembers is not None:
        _, memory = asam_jax.remember(variant.remembers).update(grads, memory)
    return result, grads, memory


def _momentum(opt_state: Any) -> Any:
    """SGD's momentum, or else the mean of gradients that Adam keeps."""
    trace = optax.tree.get(opt_state, "trace")
    return optax.tree.get(opt_state, "mu") if trace is None else trace


def _transformation(spec: StepSpec, variant: Variant, rho, weight):
    return asam_jax.sharpness_aware(
        **_region(spec.run, jnp.asarray(rho)),
        ascent=asam_jax.friendly_ascent() if variant.friendly else None,
        descent=variant.descent(weight) if variant.descent else None,
    )
