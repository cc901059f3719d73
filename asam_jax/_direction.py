"""What a step climbs along, where that is not the gradient at w itself."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from asam_jax import _checks, _vectors
from asam_jax._checks import PyTree, Scalar
from asam_jax._gradient import ascended, is_zero
from asam_jax._operators import Operator, elementwise
from asam_jax._remembered import remembered


def friendly_ascent(sigma: Scalar = 1.0, decay: Scalar = 0.9) -> optax.GradientTransformation:
    """Friendly SAM: climbs along the mini-batch's own part of the gradient.

        m = decay * m + (1 - decay) * g
        direction = g - sigma * m

    where m, from 0, estimates the gradient of the whole training set. For
    `sharpness_aware(ascent=...)`. This is the paper's form; the published code takes away the m of
    the previous steps, and its sigma corresponds to sigma / (decay + sigma (1 - decay)) here.

    Args:
      sigma: how much of m is taken away, at least 0; may be traced. 0 is ASAM.
      decay: of the moving average, from 0 to 1; may be traced.

    Returns:
      A transformation of gradients into directions of ascent, whose state is an
      `optax.EmaState`: m, one array of the parameters' size.

    Raises:
      ValueError: if sigma < 0 or decay is not in [0, 1] (where concrete).

    >>> import asam_jax, jax.numpy as jnp
    >>> ascent = asam_jax.friendly_ascent(sigma=1.0, decay=0.5)
    >>> direction, state = ascent.update(jnp.ones(2), ascent.init(jnp.ones(2)))
    >>> direction, state = ascent.update(jnp.array([1.0, 3.0]), state)
    >>> direction
    Array([0.25, 1.25], dtype=float32)

    References:
      Li et al., Friendly Sharpness-Aware Minimization, 2024.
    """
    _checks.at_least("sigma", sigma, 0.0)
    _checks.fraction("decay", decay)
    ema = optax.ema(decay, debias=False)  # pyright: ignore[reportArgumentType]

    def update(updates: PyTree, state: Any, params: PyTree | None = None) -> tuple[PyTree, Any]:
        # The average keeps its dtype, be the gradient's narrower or wider.
        grads = jax.tree.map(lambda g, m: jnp.asarray(g, m.dtype), updates, state.ema)
        mean, state = ema.update(grads, state, params)
        return _vectors.plus(updates, -jnp.asarray(sigma), mean), state

    return optax.GradientTransformation(ema.init, update)


class RememberState(NamedTuple):
    """State of `remember`.

    Attributes:
      direction: the moving average of the updates that passed, a tree like the parameters.

    >>> import asam_jax, jax.numpy as jnp
    >>> asam_jax.remember().init(jnp.ones(2))
    RememberState(direction=Array([0., 0.], dtype=float32))
    """

    direction: PyTree


def remember(decay: Scalar = 0.0) -> optax.GradientTransformation:
    """A link that passes the gradient on and keeps what `momentum_ascent` climbs along next.

        direction = decay * direction + (1 - decay) * g

    Args:
      decay: from 0, which keeps the last gradient, to 1; may be traced.

    Returns:
      A transformation that changes nothing. Its state is a `RememberState`.

    Raises:
      ValueError: if decay is not in [0, 1] (where concrete).

    >>> import asam_jax, jax.numpy as jnp, optax
    >>> tx = optax.chain(asam_jax.remember(), optax.sgd(0.1))
    >>> w = jnp.array([3.0, 4.0])
    >>> _, state = tx.update(jnp.array([1.0, 0.0]), tx.init(w), w)
    >>> asam_jax.momentum_ascent(w, state, rho=0.5, operator=asam_jax.identity())
    Array([3.5, 4. ], dtype=float32)
    """
    _checks.fraction("decay", decay)

    def init(params: PyTree) -> RememberState:
        return RememberState(direction=optax.tree.zeros_like(params))

    def update(
        updates: PyTree, state: Any, params: PyTree | None = None
    ) -> tuple[PyTree, RememberState]:
        del params
        weight = jnp.asarray(decay)
        shrunk = jax.tree.map(lambda m: m * weight.astype(m.dtype), state.direction)
        return updates, RememberState(_vectors.plus(shrunk, 1 - weight, updates))

    return optax.GradientTransformation(init, update)


_NAMES = ("direction", "trace", "mu")


def momentum_ascent(
    params: PyTree,
    opt_state: optax.OptState,
    *,
    rho: Scalar,
    operator: Operator = elementwise(),  # noqa: B008 (a frozen value)
    p: Scalar = 2.0,
    sign: int = 1,
    contrast: Scalar = 0.0,
) -> PyTree:
    """Returns w + eps, eps along what the optimizer remembers: a step costs one gradient.

        direction = sign * remembered - contrast * momentum
        eps = perturbation(w, direction, rho=rho, operator=operator, p=p)

    Take the gradient there and update w with it; no other gradient is needed, and nothing is kept
    beyond the optimizer's own state:

        grads = jax.grad(loss)(asam_jax.momentum_ascent(params, opt_state, rho=0.5), batch)
        updates, opt_state = tx.update(grads, opt_state, params)

    Loss, auxiliary output and BatchNorm statistics are then those at w + eps. On several devices
    average the gradient before update, as for SGD: all share one eps. A schedule of rho is called
    by the loop: `rho=schedule(step)`. Before the first update the momentum is zero, and so is eps.

    Args:
      params: w, the parameters that update changes.
      opt_state: the optimizer's state, through wrappers and `optax.partition`; of nnx.Optimizer,
        its opt_state. The direction is `remember`'s if that link is there, else the momentum of
        `optax.sgd` (trace), else the first moment of `optax.adam` (mu); 0 for a parameter of
        which nothing is kept (a frozen one).
      rho: the radius, a scalar of at least 0; may be traced.
      operator: T_w. See `perturbation`.
      p: the order of the region's norm, from 1 to infinity.
      sign: 1 climbs along the averaged gradients; -1 looks ahead along the step to come, as
        momentum-SAM does.
      contrast: how much of the optimizer's momentum is taken away from what `remember` keeps,
        which leaves the mini-batch's own part as in Friendly SAM; may be traced. 1 - m is its
        sigma = 1 for `optax.sgd(lr, momentum=m)`, whose momentum is a sum, and 1 for Adam's mean.

    Returns:
      w + eps, a tree like params.

    Raises:
      ValueError: if opt_state holds no momentum (with contrast: not both), several of a
        parameter, or one kind for some parameters and another for others; if sign is not 1 or -1
        or contrast < 0 (where concrete); as `perturbation`.

    >>> import asam_jax, jax, jax.numpy as jnp, numpy as np, optax
    >>> grad_fn = jax.grad(lambda w: jnp.sum(w**2))
    >>> w, tx = jnp.array([3.0, 4.0]), optax.sgd(0.1, momentum=0.9)
    >>> state = tx.init(w)
    >>> for _ in range(2):
    ...     at = asam_jax.momentum_ascent(w, state, rho=0.5, operator=asam_jax.identity())
    ...     updates, state = tx.update(grad_fn(at), state, w)
    ...     w = optax.apply_updates(w, updates)
    >>> print(np.asarray(w).round(2))
    [1.32 1.76]

    References:
      Becker et al., Momentum-SAM: Sharpness Aware Minimization without Computational Overhead,
      2024; Li et al., Friendly Sharpness-Aware Minimization, 2024.
    """
    if sign not in (1, -1):
        raise ValueError(f"sign must be 1 or -1, got {sign!r}.")
    _checks.at_least("contrast", contrast, 0.0)
    contrasted = not is_zero(contrast)
    direction = remembered(params, opt_state, _NAMES[:1] if contrasted else _NAMES)
    if sign == -1:
        direction = jax.tree.map(jnp.negative, direction)
    if contrasted:
        momentum = remembered(params, opt_state, _NAMES[1:])
        direction = _vectors.plus(direction, -jnp.asarray(contrast), momentum)
    return ascended(params, direction, rho=rho, operator=operator, p=p)
