"""Refinements of a step: rules that combine both gradients, and Friendly SAM's direction of eps."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import optax

from asam_jax import _checks, _tree
from asam_jax._collectives import Axes
from asam_jax.typing import Descent, PyTree, Scalar


def _stateless(combine: Callable[[PyTree, PyTree, Axes], PyTree]) -> Descent:
    return Descent(
        init=lambda params: (),
        perturbed=lambda grads, new, state, axes: (combine(grads, new, axes), state),
        unperturbed=lambda grads, state, axes: grads,
    )


def gsam_descent(alpha: Scalar) -> Descent:
    """GSAM (Zhuang et al. 2022): also closes the surrogate gap L(w + eps) - L(w).

        updates = g' - alpha * (g - <g, u> u),   u = g' / ||g'||_2

    where g is the gradient at w and g' that at w + eps.

    Args:
      alpha: the weight of the orthogonal part, at least 0; may be traced. 0 is ASAM.

    >>> import asam_jax, optax
    >>> tx = asam_jax.asam(optax.adamw(1e-3), rho=2.0, descent=asam_jax.gsam_descent(0.4))
    """
    _checks.number("alpha", alpha, 0.0)

    def combine(grads: PyTree, new: PyTree, axes: Axes) -> PyTree:
        return _tree.plus(new, -jnp.asarray(alpha), _tree.orthogonal(grads, new, axes))

    return _stateless(combine)


def stable_descent() -> Descent:
    """Stable SAM (Tan et al. 2024): the gradient at w + eps with the length of that at w.

        updates = ||g||_2 * g' / ||g'||_2

    g' grows with rho; so a large rho needs no smaller learning rate.

    >>> import asam_jax, optax
    >>> tx = asam_jax.asam(optax.sgd(0.1), rho=2.0, descent=asam_jax.stable_descent())
    """

    def combine(grads: PyTree, new: PyTree, axes: Axes) -> PyTree:
        ratio = _tree.root_and_inverse(grads, axes)[0] * _tree.root_and_inverse(new, axes)[1]
        return optax.tree.cast_like(_tree.twice(ratio, new), new)

    return _stateless(combine)


def wsam_descent(gamma: Scalar) -> Descent:
    """WSAM (Yue et al. 2023): weights sharpness against the loss.

        updates = g + gamma / (1 - gamma) * (g' - g)

    the gradient of L(w) + gamma / (1 - gamma) * (L(w + eps) - L(w)). The base optimizer is given
    the whole sum; `decoupled_wsam` applies the second term outside of it.

    Args:
      gamma: the weight, in [0, 1); may be traced. 0 descends along g, 1/2 is ASAM.

    >>> import asam_jax, optax
    >>> tx = asam_jax.asam(optax.adamw(1e-3), rho=2.0, descent=asam_jax.wsam_descent(0.75))
    """
    _checks.number("gamma", gamma, 0.0, 1.0)

    def combine(grads: PyTree, new: PyTree, axes: Axes) -> PyTree:
        del axes
        weight = jnp.asarray(gamma) / (1 - jnp.asarray(gamma))
        # Both terms before one rounding: in bfloat16 a large weight would multiply the first's.
        shrunk = _tree.plus(_tree.widened(grads), -weight, grads)
        return optax.tree.cast_like(_tree.plus(shrunk, weight, new), new)

    return _stateless(combine)


def looksam_descent(weight: Scalar) -> Descent:
    """LookSAM (Liu et al. 2022): reuses the part of the last g' that was orthogonal to g.

        perturbed:      updates = g',   v = g' - <g', u> u,   u = g / ||g||_2
        not perturbed:  updates = g + weight * ||g||_2 * v / ||v||_2

    For `sharpness_aware(every=k)`. The state holds v, one array of the parameters' size.

    Args:
      weight: of the reused direction relative to the gradient, at least 0; may be traced. The
        paper has 0.7 at k = 5.

    >>> import asam_jax, optax
    >>> tx = asam_jax.asam(optax.sgd(0.1), 2.0, every=5, descent=asam_jax.looksam_descent(0.7))
    """
    _checks.number("weight", weight, 0.0)

    def perturbed(grads: PyTree, new: PyTree, state: PyTree, axes: Axes) -> tuple[PyTree, PyTree]:
        return new, optax.tree.cast_like(_tree.orthogonal(new, grads, axes), state)

    def unperturbed(grads: PyTree, state: PyTree, axes: Axes) -> PyTree:
        ratio = _tree.root_and_inverse(grads, axes)[0] * _tree.root_and_inverse(state, axes)[1]
        return _tree.plus(grads, jnp.asarray(weight), _tree.twice(ratio, state))

    return Descent(optax.tree.zeros_like, perturbed, unperturbed)


def friendly_ascent(sigma: Scalar = 1.0, decay: Scalar = 0.9) -> optax.GradientTransformation:
    """Friendly SAM (Li et al. 2024): eps is made from the mini-batch's own part of the gradient.

        m = decay * m + (1 - decay) * g
        direction = g - sigma * m

    where m, from 0, estimates the gradient of the whole training set. It is the state, an
    `optax.EmaState`. The published code's sigma is sigma / (decay + sigma (1 - decay)) here.

    Args:
      sigma: how much of m is subtracted, at least 0; may be traced. 0 is ASAM.
      decay: of the moving average, in [0, 1); may be traced.

    >>> import asam_jax, optax
    >>> tx = asam_jax.asam(optax.sgd(0.1), rho=2.0, ascent=asam_jax.friendly_ascent())
    """
    _checks.number("sigma", sigma, 0.0)
    _checks.number("decay", decay, 0.0, 1.0)
    ema = optax.ema(decay, debias=False)  # pyright: ignore[reportArgumentType]

    def update_fn(updates: PyTree, state: Any, params: PyTree | None = None) -> tuple[PyTree, Any]:
        # The average keeps its dtype, whether the gradient's is narrower or wider.
        mean, state = ema.update(optax.tree.cast_like(updates, state.ema), state, params)
        return _tree.plus(updates, -jnp.asarray(sigma), mean), state

    return optax.GradientTransformation(ema.init, update_fn)
