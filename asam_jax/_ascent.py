"""Ascent to the largest loss over the region ||T_w^-1 eps||_p <= rho, by steps that stay in it."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from asam_jax._batches import repeat
from asam_jax._checks import PyTree, Scalar
from asam_jax._dtypes import wide
from asam_jax._objective import Objective, no_eps
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
    rise: jax.Array,
    grads: PyTree,
) -> State:
    """One step towards the maximizer of the loss's linearisation.

    A convex combination of two points of the region lies in the region, for every p, so that
    nothing has to be projected. The stride, at first the whole way, shrinks after each fall of
    the loss; the ascent goes on from the lower point, since it may lead out of a local maximum.
    """
    better = rise > state.best
    best_eps = _where(better, state.eps, state.best_eps)
    best_grads = _where(better, grads, state.best_grads)
    best = jnp.maximum(rise, state.best)  # a NaN stays
    stride = jnp.where(rise < state.previous, _SHRINK * state.stride, state.stride)
    idle = jnp.where(better, 0, state.idle + 1)

    back = idle >= _PATIENCE
    eps, grads = _where(back, (best_eps, best_grads), (state.eps, grads))
    # What does not move has no say: the gradient of a frozen leaf may be no number.
    grads = jax.tree.map(lambda g, t: jnp.where(t == 0, jnp.zeros_like(g), g), grads, scales)
    corner = perturbation(params, grads, rho=rho, operator=lambda _: scales, p=p)
    eps = jax.tree.map(lambda e, c: e + stride.astype(e.dtype) * (c - e), eps, corner)
    return State(
        eps=eps,
        stride=stride,
        previous=jnp.where(back, best, rise),
        idle=jnp.where(back, 0, idle),
        best=best,
        best_eps=best_eps,
        best_grads=best_grads,
    )


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
def _better(rise: jax.Array, eps: PyTree, best: jax.Array, best_eps: PyTree) -> tuple:
    return jnp.maximum(rise, best), _where(rise > best, eps, best_eps)


def _begin(eps: PyTree, rise: jax.Array, grads: PyTree) -> State:
    return State(
        eps=eps,
        stride=jnp.ones((), rise.dtype),
        previous=rise,
        idle=jnp.full((), -1, jnp.int32),
        best=rise,
        best_eps=eps,
        best_grads=grads,
    )


def _climb(
    objective: Objective, region: Region, begin: State, steps: int
) -> tuple[State, jax.Array]:
    """The state after `steps` moves, and the rise where they ended."""
    scales, rho, p = region

    def move(state: State, rise: jax.Array, grads: PyTree) -> State:
        return _move(objective.params, scales, rho, p, state, rise, grads)

    def step(state: State) -> State:
        return move(state, *objective.rise_and_grad(state.eps))

    state = move(begin, begin.best, begin.best_grads)
    state = repeat(steps - 1, step, state, roll=objective.roll)
    return state, objective.rise(state.eps)


def maximize(
    objective: Objective, region: Region, *, steps: int, restarts: int, key: jax.Array
) -> tuple[PyTree, jax.Array]:
    """The best eps met, and by how much the loss at w + eps exceeds the loss at w.

    One step gives the maximizer of the linearisation at w, be it above L(w) or not.
    """
    objective, rise, grads = objective.begun_with_grad()
    at_w = _begin(no_eps(objective.params), rise, grads)
    state, last = _climb(objective, region, at_w, steps)
    if steps == 1:
        return state.eps, last
    best, best_eps = _better(last, state.eps, state.best, state.best_eps)
    for restart in range(restarts):
        seed = jax.random.fold_in(key, restart)
        eps = _random_corner(objective.params, region.scales, region.rho, region.p, seed)
        start = _begin(eps, *objective.rise_and_grad(eps))
        state, last = _climb(objective, region, start, steps)
        best, best_eps = _better(state.best, state.best_eps, best, best_eps)
        best, best_eps = _better(last, state.eps, best, best_eps)
    return best_eps, best
