"""Sharpness-aware steps for training loops that own the gradient call."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from asam_jax import _checks, _schedules
from asam_jax._branches import choose
from asam_jax._checks import PyTree, Scalar
from asam_jax._extras import without_own
from asam_jax._operators import Operator, elementwise
from asam_jax._perturbation import perturbation
from asam_jax._reductions import every
from asam_jax._transform import Radius


class AlternatingState(NamedTuple):
    """State of `alternating`.

    Attributes:
      count: complete steps (pairs of update calls) made, a scalar.
      ascended: whether the parameters stand at w + eps, a boolean scalar.
      params: w while the parameters stand at w + eps; otherwise of no meaning.
      base: the base optimizer's state.
      finite: whether the last climb was finite, a boolean scalar. If not, eps is 0 and the
        descent hands base NaN.

    >>> import asam_jax, jax.numpy as jnp, optax
    >>> asam_jax.alternating(optax.sgd(0.1), rho=0.5).init(jnp.ones(2)).ascended
    Array(False, dtype=bool)
    """

    count: jax.typing.ArrayLike  # pyright: ignore[reportIncompatibleMethodOverride]
    ascended: jax.Array
    params: PyTree
    base: optax.OptState
    finite: jax.typing.ArrayLike = True


def alternating(
    base: optax.GradientTransformation,
    rho: Radius,
    *,
    operator: Operator | None = None,
    p: Scalar = 2.0,
) -> optax.GradientTransformationExtraArgs:
    """Climbs by eps on odd calls of update, returns to w and takes base's step on even calls.

    For loops that compute the gradient themselves and cannot hand over `grad_fn` (Linen's
    `TrainState.apply_gradients`, say): call the loop's step twice with the same mini-batch and
    the same dropout key. After an odd number of calls the parameters are w + eps: evaluate and
    save after even ones. The return to w is exact up to the rounding of the parameters' dtype,
    since all that a transformation can do is add. Where grad_fn can be had, `sharpness_aware`
    is better: it keeps no copy of the parameters.

    Where the gradient of a climb is not finite, eps is 0 and base is handed NaN at the descent, as
    it is where the gradient of the descent is not finite. So NaN comes out, unless base skips it:

        tx = asam_jax.alternating(optax.apply_if_finite(base, max_consecutive_errors=5), rho)

    then the step is left out and the parameters are w again. Put other wrappers there, too. One
    around `alternating` that leaves out calls hides them, and the pairs fall out of step with the
    mini-batches, unless the loop hands update the keyword `climb`: True at the first call of a
    pair, False at the second. A descent after a hidden climb changes nothing; a climb after a
    hidden descent makes a new eps, from w.

    Args:
      base: the optimizer that takes the step from w; weight decay belongs into it.
      rho: the radius, a scalar of at least 0, or an optax schedule of complete steps.
      operator: T_w, a function from params to scales; None for `elementwise()`.
      p: the order of the region's norm, from 1 to infinity.

    Returns:
      A transformation. Its state, an `AlternatingState`, holds one copy of the parameters.
      Its updates have the parameters' dtype, or the gradient's where that is wider: in a
      narrower one they would lose eps, the return to w and small steps. Keyword arguments of
      update go to base, but for `grad_fn` and `climb`.

    Raises:
      ValueError: if rho < 0 or p < 1 (where concrete; of a schedule in init), or if update gets
        no params.
      TypeError: if base is not an optax transformation.

    >>> import asam_jax, jax, jax.numpy as jnp, optax
    >>> grad_fn = jax.grad(lambda w: jnp.sum(w**2))
    >>> w = jnp.array([3.0, 4.0])
    >>> tx = asam_jax.alternating(optax.sgd(0.1), rho=0.5, operator=asam_jax.identity())
    >>> state = tx.init(w)
    >>> for _ in range(2):
    ...     updates, state = tx.update(grad_fn(w), state, w)
    ...     w = optax.apply_updates(w, updates)
    >>> w
    Array([2.34, 3.12], dtype=float32)

    References:
      Kwon et al., ASAM, 2021; the mode of `optax.contrib.sam` without opaque_mode.
    """
    _checks.transformation("base", base)
    if not callable(rho):
        _checks.radius(rho)
    _checks.norm_order(p)
    operator = elementwise() if operator is None else operator
    _checks.function("operator", operator)
    base = without_own(base)

    def init(params: PyTree) -> AlternatingState:
        _schedules.check_radius(rho)
        return AlternatingState(
            count=jnp.zeros([], jnp.int32),
            ascended=jnp.zeros([], jnp.bool_),
            # Zeros and not params themselves: both may be donated, and no buffer twice.
            params=optax.tree.zeros_like(params),
            base=base.init(params),
            finite=jnp.ones([], jnp.bool_),
        )

    def update(
        updates: PyTree,
        state: Any,
        params: PyTree | None = None,
        *,
        climb: Scalar | None = None,
        **extra_args: Any,
    ) -> tuple[PyTree, AlternatingState]:
        _checks.parameters(params)
        _checks.no_placeholders(updates)
        if isinstance(params, optax.LookaheadParams):
            raise ValueError(
                "params is an optax.LookaheadParams: put optax.lookahead around alternating, with "
                "an even sync_period, not into its base."
            )
        w = jax.tree.map(lambda old, at: jnp.where(state.ascended, old, at), state.params, params)

        def ascend() -> tuple[PyTree, AlternatingState]:
            radius = rho(state.count) if callable(rho) else rho
            eps = perturbation(w, updates, rho=radius, operator=operator, p=p)
            kept = jax.tree.map(lambda a, e: jnp.isfinite(a + e), w, eps)
            eps = jax.tree.map(lambda e, k: jnp.where(k, e, jnp.zeros_like(e)), eps, kept)
            # From w + eps back to w first, should the last descent have been hidden.
            eps = jax.tree.map(
                lambda e, a, at: e + jnp.where(state.ascended, a - at, jnp.zeros_like(a)),
                eps,
                w,
                params,
            )
            return jax.tree.map(_in_wider, eps, updates), state._replace(
                ascended=jnp.ones_like(state.ascended),
                params=w,
                finite=every([jnp.all(leaf) for leaf in jax.tree.leaves(kept)]),
            )

        def descend() -> tuple[PyTree, AlternatingState]:
            grads = jax.tree.map(lambda g: jnp.where(state.finite, g, jnp.nan), updates)
            steps, base_state = base.update(grads, state.base, w, **extra_args)
            target = jax.tree.map(_stepped, w, steps)
            back = jax.tree.map(
                lambda t, at, g: _in_wider(t, g) - _in_wider(at, g), target, params, updates
            )
            return back, state._replace(
                count=optax.safe_increment(state.count),
                ascended=jnp.zeros_like(state.ascended),
                base=base_state,
            )

        def stay() -> tuple[PyTree, AlternatingState]:
            nothing = jax.tree.map(jnp.zeros_like, params)
            return jax.tree.map(_in_wider, nothing, updates), state

        standing = jnp.logical_not(state.ascended)
        if climb is None:
            return choose("ascended", standing, ascend, descend)
        return choose("climb", climb, ascend, lambda: choose("ascended", standing, stay, descend))

    return optax.GradientTransformationExtraArgs(init, update)


def _wider(a: Any, b: Any) -> Any:
    return max(jnp.result_type(a), jnp.result_type(b), key=lambda dtype: jnp.finfo(dtype).bits)


def _in_wider(leaf: jax.Array, other: jax.Array) -> jax.Array:
    """A leaf in the wider of two dtypes, its own where they are of a width."""
    return leaf.astype(_wider(leaf, other))


def _stepped(leaf: jax.Array, step: jax.Array) -> jax.Array:
    dtype = _wider(leaf, step)
    return (leaf.astype(dtype) + step.astype(dtype)).astype(leaf.dtype)
