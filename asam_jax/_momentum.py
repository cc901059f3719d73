"""Steps of one gradient: eps along gradients of earlier steps."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from asam_jax import _checks, _collectives, _tree
from asam_jax._operators import elementwise
from asam_jax._perturbation import perturbation
from asam_jax.typing import AxisName, Operator, PyTree, RememberState, Scalar


def remember(decay: Scalar = 0.0) -> optax.GradientTransformation:
    """Keeps the gradient that passes, for `momentum_ascent` to perturb along at the next step.

        direction = decay * direction + (1 - decay) * g

    A gradient that is not finite leaves the state, a `typing.RememberState`, as it was. Where that
    of a frozen leaf can be NaN, leave the leaf out: `optax.masked(remember(), mask)`.

    Args:
      decay: in [0, 1); 0 keeps the last gradient. May be traced.

    >>> import asam_jax, jax.numpy as jnp, optax
    >>> tx = optax.chain(asam_jax.remember(), optax.sgd(0.1))
    >>> w = jnp.array([3.0, 4.0])
    >>> _, state = tx.update(jnp.array([1.0, 0.0]), tx.init(w), w)
    >>> optax.tree.get(state, "direction")
    Array([1., 0.], dtype=float32)
    """
    _checks.number("decay", decay, 0.0, 1.0)

    def init_fn(params: PyTree) -> RememberState:
        return RememberState(direction=optax.tree.zeros_like(params))

    def update_fn(updates: PyTree, state: Any, params: Any = None) -> tuple[PyTree, RememberState]:
        del params
        weight = jnp.asarray(decay)
        shrunk = jax.tree.map(lambda m: m * weight.astype(m.dtype), state.direction)
        new = _tree.plus(shrunk, 1 - weight, updates)
        over = frozenset().union(*map(_collectives.varying_axes, jax.tree.leaves(updates)))
        kept = _tree.if_finite(new, state.direction, updates, tuple(sorted(over)))
        return updates, RememberState(kept)

    return optax.GradientTransformation(init_fn, update_fn)


def momentum_ascent(
    params: PyTree,
    momentum: PyTree,
    *,
    rho: Scalar,
    operator: Operator = elementwise(),  # noqa: B008 (a frozen value)
    p: float = 2.0,
    sharded_axis_name: AxisName = None,
) -> PyTree:
    """Returns w + eps, eps along gradients that the optimizer keeps: a step costs one gradient.

        w + perturbation(w, momentum, rho=rho, operator=operator, p=p)

    Take the gradient there and update w with it. Loss and statistics are those at w + eps.

    Args:
      params: w, the parameters that update changes.
      momentum: a tree like params, with `optax.MaskedNode` for a leaf without one, that points
        uphill: the field "trace" of `optax.sgd`'s state, the "mu" of `optax.adam`'s or the
        "direction" of `remember`'s. The trace of `optax.rmsprop` and `optax.lars` is a step, scaled
        by the learning rate, and points downhill. Momentum-SAM (Becker et al. 2024) perturbs along
        the negative momentum.
      rho: see `perturbation`, as for operator, p, sharded_axis_name and the errors.

    >>> import asam_jax, jax, jax.numpy as jnp, numpy as np, optax
    >>> grad_fn = jax.grad(lambda w: jnp.sum(w**2))
    >>> w, tx = jnp.array([3.0, 4.0]), optax.sgd(0.1, momentum=0.9)
    >>> state, sam = tx.init(w), dict(rho=0.5, operator=asam_jax.identity())
    >>> for _ in range(2):
    ...     at = asam_jax.momentum_ascent(w, optax.tree.get(state, "trace"), **sam)
    ...     updates, state = tx.update(grad_fn(at), state, w)
    ...     w = optax.apply_updates(w, updates)
    >>> print(np.asarray(w).round(2))
    [1.32 1.76]
    """
    fill = lambda w, m: m if jax.tree.leaves(m) else jnp.zeros_like(w)  # noqa: E731
    momentum = jax.tree.map(fill, params, momentum)
    eps = perturbation(
        params, momentum, rho=rho, operator=operator, p=p, sharded_axis_name=sharded_axis_name
    )
    return jax.tree.map(jnp.add, params, eps)
