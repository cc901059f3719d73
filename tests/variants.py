"""The steps of all variants written out in NumPy float64, and ours that are compared with them."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import many
import numpy as np
import optax
import oracle

import asam_jax

LR, STEPS = 0.05, 5
zeros = lambda w: {name: np.zeros_like(a) for name, a in w.items()}  # noqa: E731
mix = lambda a, f, b: {name: a[name] + f * b[name] for name in a}  # noqa: E731
dot = lambda a, b: sum(float(np.sum(a[name] * b[name])) for name in a)  # noqa: E731


def orthogonal(a, b):
    return mix(a, -dot(a, b) / dot(b, b), b)


def perturbed(w, direction, rho=many.RHO):
    if not any(np.any(d) for d in direction.values()):
        return w
    return mix(w, 1.0, oracle.perturbation(w, direction, rho=rho))


class Batch(NamedTuple):
    """One step's examples, and those that share an eps."""

    x: np.ndarray
    y: np.ndarray
    groups: list

    def gradient(self, w):
        return many.gradient(w, self.x, self.y)

    def second(self, w, rho=many.RHO):
        """The mean over groups of the gradients at their own w + eps."""
        return many.reference(w, self.x, self.y, self.groups, rho)[1]


def by_hand(rule, steps=STEPS, groups=many.WHOLE, lost=()):
    """Gradient descent along rule(memory, step, w, batch) in float64, without the lost steps."""
    w, memory = {k: a.astype(np.float64) for k, a in many.problem()[0].items()}, {}
    for number in set(range(steps)) - set(lost):
        _, x, y = many.problem(seed=number)
        w = mix(w, -LR, rule(memory, number, w, Batch(x, y, groups)))
    return w


def exact(memory, number, w, batch):
    return batch.second(w)


def each_third(memory, number, w, batch):
    return batch.second(w) if number % 3 == 0 else batch.gradient(w)


def looksam(memory, number, w, batch, weight=0.4):
    g = batch.gradient(w)
    if number % 3 == 0:
        new = batch.second(w)
        memory["v"] = orthogonal(new, g)
        return new
    v = memory["v"]
    return mix(g, weight * np.sqrt(dot(g, g) / dot(v, v)), v)


def gsam(memory, number, w, batch, alpha=0.3):
    new = batch.second(w)
    return mix(new, -alpha, orthogonal(batch.gradient(w), new))


def stable(memory, number, w, batch):
    g, new = batch.gradient(w), batch.second(w)
    return mix(zeros(w), np.sqrt(dot(g, g) / dot(new, new)), new)


def wsam(memory, number, w, batch, gamma=0.7):
    g = batch.gradient(w)
    return mix(g, gamma / (1 - gamma), mix(batch.second(w), -1, g))


def friendly(memory, number, w, batch, sigma=0.8, decay=0.6):
    g = batch.gradient(w)
    m = memory["m"] = mix(mix(g, -decay, g), decay, memory.get("m", zeros(w)))
    return batch.gradient(perturbed(w, mix(g, -sigma, m)))


# name -> the rule by hand, and the keywords of sharpness_aware that say the same
VARIANTS = {
    "exact": (exact, {}),
    "every third": (each_third, dict(every=3)),
    "LookSAM": (looksam, dict(every=3, descent=asam_jax.looksam_descent(0.4))),
    "GSAM": (gsam, dict(descent=asam_jax.gsam_descent(0.3))),
    "Stable SAM": (stable, dict(descent=asam_jax.stable_descent())),
    "WSAM": (wsam, dict(descent=asam_jax.wsam_descent(0.7))),
    "Friendly SAM": (friendly, dict(ascent=asam_jax.friendly_ascent(0.8, 0.6))),
}


def optimizer(name, base=None, rho=many.RHO, **keywords):
    """A variant, "decoupled WSAM" among them, in front of a base: by default plain descent."""
    base = base or optax.sgd(LR)
    if name == "decoupled WSAM":
        return asam_jax.decoupled_wsam(base, LR, rho, gamma=0.7, **keywords)
    return optax.chain(asam_jax.sharpness_aware(rho, **VARIANTS[name][1], **keywords), base)


ALL = [*VARIANTS, "decoupled WSAM"]
RULES = {name: rule for name, (rule, _) in VARIANTS.items()} | {"decoupled WSAM": wsam}


def step_of(tx, axis_name=None, loss=many.loss, **extra):
    """One step of training, to be jitted or mapped."""

    def step(params, state, x, y):
        grad_fn = lambda w: jax.grad(loss)(w, x, y)  # noqa: E731
        at = many.varying(params, x, axis_name) if axis_name else params
        updates, state = tx.update(grad_fn(at), state, params, grad_fn=grad_fn, **extra)
        return optax.apply_updates(params, updates), state

    return step


def trained(tx, step=None, steps=STEPS, lost=()) -> tuple[Any, Any]:
    """The parameters after some steps, and the last state; lost steps overflow."""
    step = step or jax.jit(step_of(tx))
    params = jax.tree.map(jnp.asarray, many.problem()[0])
    state = tx.init(params)
    for number in range(steps):
        _, x, y = many.problem(seed=number)
        params, state = step(params, state, x, np.float32(np.inf if number in lost else 1.0) * y)
    return params, state
