"""The steps that `benchmark compiled` compiles: variants of one, on one of its networks."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import asam_jax
from experiments.benchmarks.compiled_models import AXIS, Problem
from experiments.benchmarks.problem import plain_formula
from experiments.training.variants import AUTHORS

REGION: Any = dict(rho=0.5, operator=AUTHORS)


def own_first(batch: Any, mesh: Mesh, share: int) -> Any:
    """One nth of a batch that is sharded over devices: each device's own first examples.

    `batch[:n]` would lie on the first devices alone, and XLA would spread it over all again.
    """

    def of(x: jax.Array) -> jax.Array:
        each = x.shape[0] // mesh.size
        x = x.reshape(mesh.size, each, *x.shape[1:])[:, : max(each // share, 1)]
        return jax.lax.with_sharding_constraint(
            x.reshape(-1, *x.shape[2:]), NamedSharding(mesh, P(AXIS))
        )

    return jax.tree.map(of, batch)


def _asam(**how: Any) -> Callable[[optax.GradientTransformation], Any]:
    return lambda base: asam_jax.asam(base, **REGION, **how)


# What makes an optimizer of a base; `step` has what else is different in some.
VARIANTS: dict[str, Callable[[optax.GradientTransformation], Any]] = {
    "base": lambda base: base,
    "optax.contrib.sam": lambda base: optax.contrib.sam(
        base, optax.chain(optax.contrib.normalize(), optax.sgd(0.05)), opaque_mode=True
    ),
    "exact": _asam(),
    "own eps": _asam(axis_name=AXIS),
    "every 4": _asam(every=4),
    "subset": lambda base: base,
    "momentum": lambda base: base,
    "friendly": _asam(ascent=asam_jax.friendly_ascent()),
    "gsam": _asam(descent=asam_jax.gsam_descent(0.3)),
    "wsam": _asam(descent=asam_jax.wsam_descent(0.7)),
    "stable": _asam(descent=asam_jax.stable_descent()),
    "looksam": _asam(every=4, descent=asam_jax.looksam_descent(0.7)),
    "decoupled": lambda base: asam_jax.decoupled_wsam(base, 1e-3, **REGION),
    "alternating, 1st": lambda base: asam_jax.alternating(base, **REGION),
    "alternating, 2nd": lambda base: asam_jax.alternating(base, **REGION),
}
SOMETIMES = ("every 4", "looksam")
GRADIENTS = ("two gradients", "plain formula", "eps")


def variants_of(model: str) -> tuple[str, ...]:
    """What is compiled of a model.

    A transformer's parameters are sharded, so that no chip can have an eps of its own, and a chip
    has one sequence, so that there is no smaller subset.
    """
    if model == "eps":
        return GRADIENTS
    sharded = model.startswith("transformer")
    return tuple(n for n in VARIANTS if not (sharded and n in ("own eps", "subset")))


def _gradients(given: Problem, name: str) -> Callable[..., Any]:
    """What eps adds to two gradients, as it is here and as a reader of the paper would write it."""

    def one(params, rest, others, batch):
        grad = jax.value_and_grad(lambda at: given.loss(at, rest, batch)[0])
        value, g = grad(params)
        if name == "two gradients":
            return value, g, grad(others)[1]
        if name == "eps":
            eps = asam_jax.perturbation(params, g, **REGION)
        else:
            eps = plain_formula(params, g, REGION["rho"])
        return value, grad(jax.tree.map(jnp.add, params, eps))[1]

    return one


def laid(given: Problem, tree: Any) -> Any:
    """Shapes of an optimizer's state, sharded as the parameters of their shape."""
    by_shape = {leaf.shape: leaf.sharding for leaf in jax.tree.leaves(given.params)}

    def lay(leaf: Any) -> jax.ShapeDtypeStruct:
        sharding = by_shape.get(leaf.shape, NamedSharding(given.mesh, P()))
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    return jax.tree.map(lay, tree)


def step(given: Problem, name: str, optimizer: Any = None) -> tuple[Callable[..., Any], Any]:
    """A step (params, rest, opt_state, batch) -> the first three, and the optimizer's state."""
    if name in GRADIENTS:
        return _gradients(given, name), given.params
    optimizer = optimizer or VARIANTS[name](given.base)
    tx = optax.with_extra_args_support(optimizer)
    grad = jax.grad(given.loss, has_aux=True)

    def one(params, rest, state, batch):
        def grad_fn(at, _=None):
            grads = grad(at, rest, batch)[0]
            if name not in SOMETIMES:
                return grads
            # In a condition XLA for GPUs makes the whole gradient on each chip unless it is told.
            shardings = jax.tree.map(lambda leaf: leaf.sharding, given.params)
            return jax.lax.with_sharding_constraint(grads, shardings)

        at, extra = params, dict(grad_fn=grad_fn)  # which a base alone ignores
        if name == "momentum":
            momentum = optax.tree.get(state, "mu", optax.tree.get(state, "trace"))
            at = asam_jax.momentum_ascent(params, momentum, **REGION)
        elif name == "own eps":
            at = jax.lax.pcast(params, AXIS, to="varying")
        if name == "subset":
            some = lambda w, *_: given.loss(w, rest, own_first(batch, given.mesh, 16))[0]  # noqa: E731
            whole = asam_jax.value_and_grad(given.loss, has_aux=True, ascent_fun=some, **REGION)
            (_, new), grads = whole(params, rest, batch)
        else:
            grads, new = grad(at, rest, batch)
        if name.startswith("alternating"):
            extra = dict(perturb=name.endswith("1st"))
        updates, state = tx.update(grads, state, params, **extra)
        if name == "own eps" and jax.tree.leaves(new):
            new = jax.lax.pmean(new, AXIS)
        return optax.apply_updates(params, updates), new, state

    state = laid(given, jax.eval_shape(tx.init, given.params))
    if name != "own eps":
        return one, state
    specs = (P(), P(), P(), P(AXIS))
    return jax.shard_map(one, mesh=given.mesh, in_specs=specs, out_specs=P()), state
