"""What a step descends along: rules that combine the gradients at w and at w + eps."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from asam_jax import _checks, _vectors
from asam_jax._checks import PyTree, Scalar


class Descent(NamedTuple):
    """A rule for `sharpness_aware(descent=...)`, made by `gsam_descent` and its like.

    Attributes:
      init: from parameters to the rule's state.
      ascended: from (g, g', state) to (updates, state), at steps that climbed: g is the gradient
        at w, g' the one at w + eps, both averaged over `axis_name`.
      between: from (g, state) to updates, at steps that did not.

    >>> import asam_jax
    >>> asam_jax.gsam_descent(0.1).init({})
    ()
    """

    init: Callable[[PyTree], Any]
    ascended: Callable[[PyTree, PyTree, Any], tuple[PyTree, Any]]
    between: Callable[[PyTree, Any], PyTree]


def _stateless(combine: Callable[[PyTree, PyTree], PyTree]) -> Descent:
    return Descent(
        init=lambda params: (),
        ascended=lambda grads, ascended, state: (combine(grads, ascended), state),
        between=lambda grads, state: grads,
    )


def gsam_descent(alpha: Scalar, *, minimize_fp: bool = True) -> Descent:
    """GSAM: also ascends in the part of g that is orthogonal to g', to close the surrogate gap.

        updates = g' - alpha * (g - <g, u> u),   u = g' / ||g'||_2

    where g is the gradient at w and g' that at w + eps. It costs no gradient beyond ASAM's two.
    The loss at w + eps and the gap to it are minimized. With minimize_fp=False it is the loss at
    w and the gap, which its authors find closer to plain training, with fewer spikes of the loss:

        updates = g + alpha * (g' - <g', u> u),   u = g / ||g||_2

    Args:
      alpha: the weight of the orthogonal part, a scalar of at least 0; may be traced. 0 is ASAM,
        or the base optimizer with minimize_fp=False.
      minimize_fp: whether the loss at w + eps is minimized, or that at w; static.

    Returns:
      A `Descent` without state.

    Raises:
      ValueError: if alpha < 0 (where concrete).

    >>> import asam_jax, jax, jax.numpy as jnp, numpy as np
    >>> grad_fn = jax.grad(lambda w: jnp.sum(w**2 * jnp.array([1.0, 3.0])) / 2)
    >>> w = jnp.array([3.0, 1.0])
    >>> tx = asam_jax.sharpness_aware(0.5, descent=asam_jax.gsam_descent(0.4))
    >>> updates, _ = tx.update(grad_fn(w), tx.init(w), w, grad_fn=grad_fn)
    >>> print(np.asarray(updates).round(3))
    [4.551 3.324]

    References:
      Zhuang et al., Surrogate Gap Minimization Improves Sharpness-Aware Training, 2022.
    """
    _checks.at_least("alpha", alpha, 0.0)

    def at_eps(grads: PyTree, ascended: PyTree) -> PyTree:
        _, unit = _vectors.norm_and_unit(ascended)
        return _vectors.plus(ascended, -jnp.asarray(alpha), _vectors.orthogonal(grads, unit))

    def at_w(grads: PyTree, ascended: PyTree) -> PyTree:
        _, unit = _vectors.norm_and_unit(grads)
        return _vectors.plus(grads, jnp.asarray(alpha), _vectors.orthogonal(ascended, unit))

    return _stateless(at_eps if minimize_fp else at_w)


def stable_descent() -> Descent:
    """Stable SAM: the gradient at w + eps with the length of that at w.

        updates = ||g||_2 * g' / ||g'||_2

    g' grows with rho, and where training diverges for it, a smaller learning rate would be needed;
    its length does not. It costs no gradient beyond ASAM's two.

    Returns:
      A `Descent` without state. Where g' is 0, so are its updates.

    >>> import asam_jax, jax, jax.numpy as jnp, numpy as np
    >>> grad_fn = jax.grad(lambda w: jnp.sum(w**2))
    >>> w = jnp.array([3.0, 4.0])
    >>> tx = asam_jax.sharpness_aware(5.0, descent=asam_jax.stable_descent())
    >>> updates, _ = tx.update(grad_fn(w), tx.init(w), w, grad_fn=grad_fn)
    >>> print(np.asarray(jnp.linalg.norm(updates)).round(3))
    10.0

    References:
      Tan et al., Stabilizing Sharpness-Aware Minimization Through A Simple Renormalization
      Strategy, 2024.
    """

    def combine(grads: PyTree, ascended: PyTree) -> PyTree:
        size, _ = _vectors.norm_and_unit(grads)
        _, unit = _vectors.norm_and_unit(ascended)
        return jax.tree.map(lambda u, g: (size.astype(u.dtype) * u).astype(g.dtype), unit, ascended)

    return _stateless(combine)


def wsam_descent(gamma: Scalar) -> Descent:
    """WSAM: weights sharpness against the loss.

        updates = g + gamma / (1 - gamma) * (g' - g)

    the gradient of L(w) + gamma / (1 - gamma) * (L(w + eps) - L(w)). gamma = 0 descends along g,
    1/2 is ASAM, more weighs sharpness more. This is the coupled form, all of which goes through the
    base optimizer; `decoupled_wsam` applies the second term past it.

    Args:
      gamma: the weight, a scalar of at least 0 and less than 1; may be traced.

    Returns:
      A `Descent` without state.

    Raises:
      ValueError: if gamma is not in [0, 1) (where concrete).

    >>> import asam_jax, jax, jax.numpy as jnp, numpy as np
    >>> grad_fn = jax.grad(lambda w: jnp.sum(w**2))
    >>> w = jnp.array([3.0, 4.0])
    >>> sam = dict(rho=0.5, operator=asam_jax.identity())
    >>> tx = asam_jax.sharpness_aware(**sam, descent=asam_jax.wsam_descent(0.75))
    >>> updates, _ = tx.update(grad_fn(w), tx.init(w), w, grad_fn=grad_fn)
    >>> print(np.asarray(updates).round(3))
    [ 7.8 10.4]

    References:
      Yue et al., Sharpness-Aware Minimization Revisited: Weighted Sharpness as a Regularization
      Term, 2023.
    """
    _checks.at_least("gamma", gamma, 0.0)
    _checks.below("gamma", gamma, 1.0)

    def combine(grads: PyTree, ascended: PyTree) -> PyTree:
        weight = jnp.asarray(gamma)
        weight = weight / (1 - weight)
        return _vectors.plus(_vectors.plus(grads, -weight, grads), weight, ascended)

    return _stateless(combine)


def look_descent(weight: Scalar) -> Descent:
    """LookSAM: between two ascents reuses the part of the last g' that was orthogonal to g.

        at an ascent:  updates = g',   v = g' - <g', u> u,   u = g / ||g||_2
        between:       updates = g + weight * ||g||_2 * v / ||v||_2

    For `sharpness_aware(every=k)`. The state holds v, one array of the parameters' size.

    Args:
      weight: of the reused direction relative to the gradient, at least 0; may be traced. The
        paper has 0.7 at k = 5; 0 is plain descent between the ascents.

    Returns:
      A `Descent` with one tree like the parameters as its state.

    Raises:
      ValueError: if weight < 0 (where concrete).

    >>> import asam_jax, jax, jax.numpy as jnp, numpy as np
    >>> grad_fn = jax.grad(lambda w: jnp.sum(w**2 * jnp.array([1.0, 3.0])) / 2)
    >>> w = jnp.array([3.0, 1.0])
    >>> tx = asam_jax.sharpness_aware(0.5, every=2, descent=asam_jax.look_descent(0.5))
    >>> _, state = tx.update(grad_fn(w), tx.init(w), w, grad_fn=grad_fn)
    >>> updates, _ = tx.update(grad_fn(w), state, w, grad_fn=grad_fn)
    >>> print(np.asarray(updates).round(3))
    [4.5 1.5]

    References:
      Liu et al., Towards Efficient and Scalable Sharpness-Aware Minimization, 2022.
    """
    _checks.at_least("weight", weight, 0.0)

    def ascended(grads: PyTree, new: PyTree, state: PyTree) -> tuple[PyTree, PyTree]:
        _, unit = _vectors.norm_and_unit(grads)
        reused = _vectors.orthogonal(new, unit)
        return new, jax.tree.map(lambda v, old: v.astype(old.dtype), reused, state)

    def between(grads: PyTree, state: PyTree) -> PyTree:
        size, _ = _vectors.norm_and_unit(grads)
        _, unit = _vectors.norm_and_unit(state)
        return _vectors.plus(grads, jnp.asarray(weight).astype(size.dtype) * size, unit)

    return Descent(init=optax.tree.zeros_like, ascended=ascended, between=between)
