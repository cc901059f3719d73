"""Ascent to the largest loss over the region ||T_w^-1 eps||_p <= rho, by steps that stay in it."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from asam_jax._batches import repeat
from asam_jax._checks import PyTree, Scalar
from asam_jax._dtypes import wide
from asam_jax._objective import Objective
from asam_jax._operators import identity
from asam_jax._perturbation import perturbation

# Steps without a new best loss after which the ascent goes back to the best point.
_PATIENCE = 4

# What a fall of the loss leaves of the stride. Halving it freezes some ascents too early.
_SHRINK = 0.7


class Region(NamedTuple):
    """The region ||T_w^-1 eps||_p <= rho, T_w as a tree of scales."""

    scales: PyTree
    rho: Scalar
    p: float


class State(NamedTuple):
    """Where an ascent is, and the best point that it has met."""

    eps: PyTree
    stride: jax.Array
    previous: jax.Array
    idle: jax.Array
    best: jax.Array
    best_eps: PyTree
    best_grads: PyTree


def _where(condition: jax.Array, a: PyTree, b: PyTree) -> PyTree:
    return jax.tree.map(lambda x, y: jnp.where(condition, x, y), a, b)


@functools.partial(jax.jit, static_argnames="p")
def _move(
    params: PyTree,
    scales: PyTree,
    rho: Scalar,
    p: float,
    state: State,
    loss: jax.Array,
    grads: PyTree,
) -> State:
    """One step towards the maximizer of the loss's linearisation.

    A convex combination of two points of the region lies in the region, for every p, so that
    nothing has to be projected. The stride, at first the whole way, shrinks after each fall of
    the loss; the ascent goes on from the lower point, since it may lead out of a local maximum.
    """
    better = loss > state.best
    best_eps = _where(better, state.eps, state.best_eps)
    best_grads = _where(better, grads, state.best_grads)
    best = jnp.maximum(loss, state.best)  # a NaN stays
    stride = jnp.where(loss < state.previous, _SHRINK * state.stride, state.stride)
    idle = jnp.where(better, 0, state.idle + 1)

    back = idle >= _PATIENCE
    eps, grads = _where(back, (best_eps, best_grads), (state.eps, grads))
    corner = perturbation(params, grads, rho=rho, operator=lambda _: scales, p=p)
    eps = jax.tree.map(lambda e, c: e + stride.astype(e.dtype) * (c - e), eps, corner)
    return State(
        eps=eps,
        stride=stride,
        previous=jnp.where(back, best, loss),
        idle=jnp.where(back, 0, idle),
        best=best,
        best_eps=best_eps,
        best_grads=best_grads,
    )


@jax.jit
def _zeros(params: PyTree) -> PyTree:
    return jax.tree.map(jnp.zeros_like, params)


@functools.partial(jax.jit, static_argnames="p")
def _random_corner(params: PyTree, scales: PyTree, rho: Scalar, p: float, key: jax.Array) -> PyTree:
    """The maximizer of a random linear function over the region: on the sphere for p = 2.

    Drawn in the coordinates T_w^-1 eps, so that a rescaling of the weights carries it along.
    """
    leaves, treedef = jax.tree.flatten(params)
    keys = jax.random.split(key, max(len(leaves), 1))
    draws = [
        jax.random.normal(k, jnp.shape(leaf), wide(leaf))
        for k, leaf in zip(keys, leaves, strict=False)
    ]
    corner = perturbation(draws, draws, rho=rho, operator=identity(), p=p)
    eps = [
        (jnp.asarray(t).astype(c.dtype) * c).astype(jnp.result_type(leaf))
        for t, c, leaf in zip(jax.tree.leaves(scales), corner, leaves, strict=True)
    ]
    return jax.tree.unflatten(treedef, eps)


@jax.jit
def _better(loss: jax.Array, eps: PyTree, best: jax.Array, best_eps: PyTree) -> tuple:
    return jnp.maximum(loss, best), _where(loss > best, eps, best_eps)


def _climb(
    objective: Objective, region: Region, start: PyTree, steps: int
) -> tuple[State, jax.Array, jax.Array]:
    """The state after `steps` moves, the loss at the start and the loss where they ended."""
    scales, rho, p = region

    def move(state: State) -> State:
        loss, grads = objective.value_and_grad(state.eps)
        return _move(objective.params, scales, rho, p, state, loss, grads)

    loss, grads = objective.value_and_grad(start)
    state = State(
        eps=start,
        stride=jnp.ones((), loss.dtype),
        previous=loss,
        idle=jnp.full((), -1, jnp.int32),
        best=loss,
        best_eps=start,
        best_grads=grads,
    )
    state = _move(objective.params, scales, rho, p, state, loss, grads)
    state = repeat(steps - 1, move, state, roll=objective.roll)
    return state, loss, objective.value(state.eps)


def maximize(
    objective: Objective, region: Region, *, steps: int, restarts: int, key: jax.Array
) -> tuple[PyTree, jax.Array]:
    """The best eps met, and by how much the loss at w + eps exceeds the loss at w.

    One step gives the maximizer of the linearisation at w, be it above L(w) or not.
    """
    state, base, last = _climb(objective, region, _zeros(objective.params), steps)
    if steps == 1:
        return state.eps, last - base
    best, best_eps = _better(last, state.eps, state.best, state.best_eps)
    for restart in range(restarts):
        seed = jax.random.fold_in(key, restart)
        start = _random_corner(objective.params, region.scales, region.rho, region.p, seed)
        state, _, last = _climb(objective, region, start, steps)
        best, best_eps = _better(state.best, state.best_eps, best, best_eps)
        best, best_eps = _better(last, state.eps, best, best_eps)
    return best_eps, best - base
