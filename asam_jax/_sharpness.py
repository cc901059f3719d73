"""Adaptive sharpness of a loss, Equation 4, and the perturbation that attains it."""

import jax

from asam_jax import _checks
from asam_jax._ascent import Region, maximize
from asam_jax._batches import divisor, piece, rolled, size_of
from asam_jax._checks import PyTree, Scalar
from asam_jax._means import mean_over
from asam_jax._objective import Losses, LossFn, Objective, scales_of
from asam_jax._operators import Operator, elementwise
from asam_jax._programs import Program


def _key(key: jax.Array | None) -> jax.Array:
    return jax.random.key(0) if key is None else key


def _region(params: PyTree, rho: Scalar, operator: Operator, p: float) -> Region:
    """The region, with T_w taken once for all groups."""
    _checks.radius(rho)
    _checks.norm_order(p)
    return Region(scales_of(operator, params), rho, float(p))


def _one_step(losses: Losses, p: float) -> Program:
    """One step on one piece as a single program: a gradient and a loss, one dispatch."""

    def rise(params: PyTree, scales: PyTree, batch: PyTree, rho: Scalar) -> jax.Array:
        objective = Objective(losses, params, 1, lambda _: batch, roll=False)
        region, key = Region(scales, rho, p), jax.random.key(0)
        return maximize(objective, region, steps=1, restarts=0, key=key)[1]

    return Program(rise)


def maximizer(
    loss_fn: LossFn,
    params: PyTree,
    batch: PyTree,
    *,
    rho: Scalar,
    operator: Operator = elementwise(),  # noqa: B008 (a frozen value)
    p: float = 2.0,
    steps: int = 1,
    restarts: int = 2,
    key: jax.Array | None = None,
) -> tuple[PyTree, jax.Array]:
    """The perturbation that attains the sharpness of one group, and that sharpness.

        argmax over ||T_w^-1 eps||_p <= rho  of  L(w + eps),  as far as `steps` find it

    The arguments are those of `sharpness`, except that the batch is one group and is handed to
    loss_fn as it is: any tree, also an empty one.

    Returns:
      eps, a tree of params' structure, shapes and dtypes, and L(w + eps) - L(w), a scalar of
      float32 or the loss's dtype where that is wider.

    Raises:
      ValueError: if rho < 0, p < 1, steps < 1 or restarts < 0.
      TypeError: if loss_fn or operator is not callable, or a leaf is not real floating point.

    >>> import asam_jax, jax.numpy as jnp
    >>> loss = lambda w, batch: w[0] * w[1]
    >>> w = jnp.array([3.0, 1.0])
    >>> operator = asam_jax.elementwise(eta=0.0)
    >>> asam_jax.maximizer(loss, w, (), rho=0.5, operator=operator, p=jnp.inf)
    (Array([1.5, 0.5], dtype=float32), Array(3.75, dtype=float32))

    References:
      Kwon et al., ASAM, 2021, Figure 1.
    """
    losses = Losses(loss_fn)
    steps = _checks.count("steps", steps, 1)
    restarts = _checks.count("restarts", restarts, 0)
    region = _region(params, rho, operator, p)
    roll = rolled(params, batch, rho)
    objective = Objective(losses, params, 1, lambda _: batch, roll)
    return maximize(objective, region, steps=steps, restarts=restarts, key=_key(key))


def sharpness(
    loss_fn: LossFn,
    params: PyTree,
    batch: PyTree,
    *,
    rho: Scalar,
    operator: Operator = elementwise(),  # noqa: B008 (a frozen value)
    p: float = 2.0,
    m: int | None = None,
    steps: int = 1,
    restarts: int = 2,
    key: jax.Array | None = None,
    batch_size: int | None = None,
) -> jax.Array:
    """Adaptive sharpness, averaged over groups of m examples.

        mean over groups of  max over ||T_w^-1 eps||_p <= rho  of  L(w + eps) - L(w)

    With one step the maximizer is that of the loss's linearisation, `perturbation`, as in
    training; the value can be negative where L is not convex.

    With more, the ascent goes on in the coordinates T_w^-1 eps, where the region is a plain
    p-ball: each step moves towards the maximizer of the linearisation at the current point, all
    the way at first and 0.7 times as far after each fall of the loss, and after four steps
    without a new best goes back to the best point. So it never leaves the region, and it is as
    invariant to rescaling as the region is. `restarts` further ascents start at random corners
    of the region. The best loss met counts: never less than the one-step value or 0, nor for more
    steps or restarts, up to rounding.

    The batch may be a whole data set, as NumPy arrays of which one group at a time goes to the
    device. Called with concrete arrays it loops over the groups with one compiled function. Each
    call traces loss_fn anew, so that it sees globals, attributes and closures as they are now, and
    compiles only what it has not compiled before. (What a loss_fn that is itself under jax.jit has
    closed over is kept by JAX.)
    Called under jit it becomes part of the program, unrolled on the CPU, where convolutions
    inside a loop are slow, and as a loop elsewhere; so measure many groups outside jit.

    The value is a difference of losses and cannot be finer than their rounding: of a loss of 1e8 in
    float32 nothing below 8. There measure in float64 (`jax.enable_x64`).

    What the model does with a group is loss_fn's matter: for BatchNorm with its running
    statistics let loss_fn evaluate the model in evaluation mode, for the statistics of each group
    in training mode.

    Args:
      loss_fn: `loss_fn(params, batch)` -> the mean loss over the batch, a scalar.
      params: a tree of real floating-point arrays, w.
      batch: a tree of arrays with a leading axis of examples.
      rho: the radius of the region, a scalar of at least 0. See `perturbation`.
      operator: T_w, taken at w. See `perturbation`. A coordinate with T_w = 0 (a zero weight and
        eta = 0) does not move.
      p: the order of the region's norm, from 1 to infinity.
      m: examples in a group; must divide the batch. None for the whole batch as one group.
      steps: steps of an ascent, at least 1: each costs a gradient, and one more loss in the end.
      restarts: ascents from random corners after the one from w, each at the same cost; with
        one step there are none.
      key: a key of jax.random for the corners; None for jax.random.key(0).
      batch_size: examples that loss_fn sees at once, where a group is too large for the memory;
        must divide the group. Losses and gradients are averaged. None for a whole group.

    Returns:
      A scalar in the loss's units; float32, or the loss's dtype where that is wider.

    Raises:
      ValueError: if m does not divide the batch, batch_size does not divide the group, rho < 0,
        p < 1, steps < 1 or restarts < 0.
      TypeError: if loss_fn or operator is not callable, if loss_fn returns no real
        scalar, or if a leaf is not real floating point.

    >>> import asam_jax, jax.numpy as jnp
    >>> loss = lambda w, x: jnp.mean(x @ w)
    >>> w, x = jnp.array([3.0, 4.0]), jnp.array([[3.0, 0.0], [0.0, 4.0]])
    >>> asam_jax.sharpness(loss, w, x, rho=0.5, operator=asam_jax.identity())
    Array(1.25, dtype=float32)
    >>> asam_jax.sharpness(loss, w, x, rho=0.5, operator=asam_jax.identity(), m=1)
    Array(1.75, dtype=float32)

    References:
      Kwon et al., ASAM, 2021, Equation 4 and Appendix B; Foret et al., SAM, 2020 (m-sharpness);
      Croce and Hein, 2020 (APGD, whose maxima the ascent is tested against).
    """
    losses = Losses(loss_fn)
    steps = _checks.count("steps", steps, 1)
    restarts = _checks.count("restarts", restarts, 0)
    examples = size_of(batch)
    m = divisor("m", m, examples, "the batch")
    size = divisor("batch_size", batch_size, m, "the group")
    region = _region(params, rho, operator, p)
    pieces, roll = m // size, rolled(params, batch, rho)
    one_step = _one_step(losses, region.p)

    def group(index: jax.typing.ArrayLike) -> jax.Array:
        def batch_of(i: jax.typing.ArrayLike) -> PyTree:
            return piece(batch, index * pieces + i, size)

        if steps == pieces == 1:
            return one_step(params, region.scales, batch_of(0), rho)
        objective = Objective(losses, params, pieces, batch_of, roll)
        seed = jax.random.fold_in(_key(key), index)
        return maximize(objective, region, steps=steps, restarts=restarts, key=seed)[1]

    return mean_over(examples // m, group, roll=roll)
