"""The steps of the cheap forms and of the refinements, written out in NumPy float64."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import many
import numpy as np
import optax
import oracle

LR, STEPS = 0.05, 7
loss = functools.partial(many.loss, jnp)
zeros = lambda w: {name: np.zeros_like(a) for name, a in w.items()}  # noqa: E731
mix = lambda a, f, b: {name: a[name] + f * b[name] for name in a}  # noqa: E731
dot = lambda a, b: sum(float(np.sum(a[name] * b[name])) for name in a)  # noqa: E731


def batch(number):
    """Inputs and targets of one step."""
    _, x, y = many.problem(seed=number)
    return x, y


def climbed(w, direction, rho=many.RHO):
    if not any(np.any(d) for d in direction.values()):
        return w
    return mix(w, 1.0, oracle.perturbation(w, direction, rho=rho))


def orthogonal(a, b):
    return mix(a, -dot(a, b) / dot(b, b), b)


def by_hand(rule, steps=STEPS):
    """Gradient descent along rule(memory, step, w, gradient at parameters) in float64."""
    w, memory = {k: a.astype(np.float64) for k, a in many.problem()[0].items()}, {}
    for number in range(steps):
        x, y = batch(number)
        w = mix(w, -LR, rule(memory, number, w, lambda at, x=x, y=y: many.gradient(at, x, y)))
    return w


def trained(link, steps=STEPS, jit=True) -> tuple[Any, Any]:
    """The same with the link, and its last state."""
    tx = optax.chain(link, optax.sgd(LR))

    def step(params, state, x, y):
        grad_fn = lambda w: jax.grad(loss)(w, x, y)  # noqa: E731
        updates, state = tx.update(grad_fn(params), state, params, grad_fn=grad_fn)
        return optax.apply_updates(params, updates), state

    step = jax.jit(step) if jit else step
    params = jax.tree.map(jnp.asarray, many.problem()[0])
    state = tx.init(params)
    for number in range(steps):
        params, state = step(params, state, *batch(number))
    return params, state


def exact(memory, number, w, gradient):
    return gradient(climbed(w, gradient(w)))


def each_third(memory, number, w, gradient):
    return exact(memory, number, w, gradient) if number % 3 == 0 else gradient(w)


def looking(memory, number, w, gradient, weight=0.4):
    g = gradient(w)
    if number % 3 == 0:
        new = gradient(climbed(w, g))
        memory["v"] = orthogonal(new, g)
        return new
    v = memory["v"]
    return mix(g, weight * np.sqrt(dot(g, g) / dot(v, v)), v)


def gsam(memory, number, w, gradient, alpha=0.3):
    g = gradient(w)
    new = gradient(climbed(w, g))
    return mix(new, -alpha, orthogonal(g, new))


def gsam_of_the_loss(memory, number, w, gradient, alpha=0.3):
    g = gradient(w)
    return mix(g, alpha, orthogonal(gradient(climbed(w, g)), g))


def stable(memory, number, w, gradient):
    g = gradient(w)
    new = gradient(climbed(w, g))
    return mix(zeros(w), np.sqrt(dot(g, g) / dot(new, new)), new)


def wsam(memory, number, w, gradient, gamma=0.7):
    g = gradient(w)
    new = gradient(climbed(w, g))
    return {n: ((1 - 2 * gamma) * g[n] + gamma * new[n]) / (1 - gamma) for n in g}


def friendly(memory, number, w, gradient, sigma=0.8, decay=0.6):
    g = gradient(w)
    m = memory["m"] = mix(mix(g, -decay, g), decay, memory.get("m", zeros(w)))
    return gradient(climbed(w, mix(g, -sigma, m)))
