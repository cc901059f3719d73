"""Adaptive sharpness of a loss: the largest increase near w, Equation 4, and the average one."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from asam_jax import _checks, _operators
from asam_jax._operators import elementwise
from asam_jax._perturbation import perturbation
from asam_jax._radius import Loss, LossFn, groups_of
from asam_jax._tree import inverse, mean, widened, zeros
from asam_jax.typing import Operator, PyTree, Scalar

# The ascent goes back to the best point after so many steps without a new one; a fall of the loss
# leaves so much of its stride. Halving it freezes some ascents too early.
_PATIENCE, _SHRINK = 4, 0.7

# L(w) is measured once for so many pairs of draws, and how far from w, in units of a draw: far
# enough to be rounded anew, and near enough to increase by a millionth of what a draw does.
_PAIRS_TO_ONE, _HAIR = 16, 2.0**-10


def _normal(params: PyTree, key: jax.Array) -> PyTree:
    """Standard normal noise, in the dtypes to compute in."""
    return optax.tree.random_like(key, widened(params))


def _select(first: jax.Array, a: PyTree, b: PyTree) -> PyTree:
    return jax.tree.map(lambda x, y: jax.lax.select_n(first, y, x), a, b)


@jax.jit
def _better(new: tuple, best: tuple) -> tuple:
    """Of two tuples that begin with an increase of the loss that of the larger; a NaN stays."""
    return _select((new[0] > best[0]) | jnp.isnan(new[0]), new, best)


def _next(here: tuple, state: tuple) -> tuple[tuple, jax.Array, tuple]:
    """From where the ascent goes on, here or the best point, how far, and what it remembers."""
    best, previous, stride, idle = state
    stride = jnp.where(here[0] < previous, _SHRINK * stride, stride)
    idle = jnp.where(here[0] > best[0], 0, idle + 1)
    best = _better(here, best)
    back = idle >= _PATIENCE
    here = _select(back, best, here)
    return here, stride, (best, here[0], stride, jnp.where(back, 0, idle))


class _Ascent:
    """From (params, group, its number) to L(w + eps) - L(w) and eps, for the best eps found."""

    def __init__(
        self,
        loss_fn: LossFn,
        rho: Any,
        operator: Operator,
        p: float,
        steps: Any,
        restarts: Any,
        key: jax.Array | None,
    ) -> None:
        _operators.check(operator)
        _checks.radius(rho)
        _checks.norm_order(p)
        self.steps = _checks.count("steps", steps, 1)
        self.restarts = _checks.count("restarts", restarts, 0)
        self.loss, self.operator, self.key = Loss(loss_fn), operator, key
        self.corner = jax.jit(functools.partial(perturbation, rho=rho, operator=operator, p=p))
        self.move, self.random_corner = jax.jit(self._move), jax.jit(self._random_corner)
        # Of one step, a gradient and a loss, one program.
        self.maximize = jax.jit(self._one_step) if self.steps == 1 else self._best_ascent

    def _random_corner(self, params: PyTree, number: int, restart: int) -> PyTree:
        """That of a linear function drawn in the coordinates T_w^-1 eps, as the region is."""
        key = jax.random.key(0) if self.key is None else self.key
        noise = _normal(params, jax.random.fold_in(jax.random.fold_in(key, number), restart))
        # Of T_w g = noise only the direction counts: a share of g does not overflow.
        over = lambda z, t: z / 16 * inverse(jnp.asarray(t).astype(z.dtype))  # noqa: E731
        return self.corner(params, jax.tree.map(over, noise, self.operator(params)))

    def _move(self, params: PyTree, here: tuple, state: tuple) -> tuple[PyTree, tuple]:
        """One step towards the maximizer of the loss's linearisation.

        A convex combination of two points of the region lies in the region, for every p, so that
        nothing has to be projected. The stride, at first the whole way, shrinks after each fall of
        the loss; the ascent goes on from the lower point, since it may lead out of a local maximum.
        """
        (_, eps, grads), stride, state = _next(here, state)
        to = self.corner(params, grads)
        return jax.tree.map(lambda e, c: e + stride.astype(e.dtype) * (c - e), eps, to), state

    def _look(self, params: PyTree, eps: PyTree, group: PyTree, at_w: jax.Array) -> tuple:
        value, grads = self.loss.with_grad(params, eps, group)
        return value - at_w, eps, grads

    def _from(self, params: PyTree, here: tuple, group: PyTree, at_w: jax.Array) -> tuple:
        eps, state = self.move(params, here, (here, here[0], jnp.ones_like(here[0]), -1))
        for _ in range(self.steps - 1):
            eps, state = self.move(params, self._look(params, eps, group, at_w), state)
        return _better((self.loss.at(params, eps, group) - at_w, eps), state[0][:2])

    def _one_step(self, params: PyTree, group: PyTree, number: int) -> tuple[jax.Array, PyTree]:
        del number
        at_w, grads = self.loss.with_grad(params, zeros(params), group)
        eps = self.corner(params, grads)
        return self.loss.at(params, eps, group) - at_w, eps

    def _best_ascent(self, params: PyTree, group: PyTree, number: int) -> tuple:
        at_w, grads = self.loss.with_grad(params, zeros(params), group)
        best = self._from(params, (at_w - at_w, zeros(params), grads), group, at_w)
        for restart in range(self.restarts):
            corner = self.random_corner(params, number, restart)
            here = self._look(params, corner, group, at_w)
            best = _better(self._from(params, here, group, at_w), best)
        return best


def sharpness(
    loss_fn: LossFn,
    *,
    rho: Scalar,
    operator: Operator = elementwise(),  # noqa: B008 (a frozen value)
    p: float = 2.0,
    m: int | None = None,
    steps: int = 1,
    restarts: int = 2,
    key: jax.Array | None = None,
) -> Callable[[PyTree, PyTree], jax.Array]:
    """Adaptive sharpness, averaged over groups of m examples (Kwon et al. 2021, Equation 4).

        mean over groups of  max over ||T_w^-1 eps||_p <= rho  of  L(w + eps) - L(w)

    With one step eps is `perturbation`, as in training, and the value can be negative. With more,
    an ascent follows in the coordinates T_w^-1 eps, where the region is a plain p-ball: each step
    moves towards the maximizer of the linearisation at the current point, 0.7 times as far after
    each fall of the loss. It never leaves the region, and is as invariant to rescaling as that is.
    The best loss counts, never less than L(w). (Tested against APGD, Croce and Hein 2020.)

    Keep the function: `measure = sharpness(loss, rho=0.5)` once, `measure(params, batch)` in each
    epoch. It compiles in the first call and has the semantics of `jax.jit` for what loss_fn closes
    over: later changes of a global or an attribute are not seen. The batch may be a whole data set
    as NumPy arrays, of which one group at a time goes to the device. Under jit the groups are
    unrolled, so measure many groups outside. Inside shard_map the value is each device's own.

    The value cannot be finer than the rounding of the losses, which is 8 for a loss of 1e8 in
    float32: there measure in float64 (`jax.enable_x64`).

    Args:
      loss_fn: `loss_fn(params, batch)` -> the mean loss over the batch, a scalar. For BatchNorm
        with its running statistics evaluate the model in evaluation mode.
      rho: see `perturbation`, as for operator (T_w, taken at w) and p.
      m: examples in a group; must divide the batch. None for the whole batch, any tree, as one.
      steps: steps of an ascent, at least 1: each costs a gradient, and one more loss in the end.
      restarts: ascents from random corners of the region after the one from w, if steps > 1.
      key: a key of jax.random for the corners; None for jax.random.key(0).

    Returns:
      A function of (params, batch) that returns a scalar in the loss's units; float32, or the
      loss's dtype where that is wider.

    Raises:
      ValueError, TypeError: as `perturbation`; if steps < 1 or restarts < 0; when called, if m does
        not divide the batch, or loss_fn returns no real scalar.

    >>> import asam_jax, jax.numpy as jnp
    >>> loss = lambda w, x: jnp.mean(x @ w)
    >>> w, x = jnp.array([3.0, 4.0]), jnp.array([[3.0, 0.0], [0.0, 4.0]])
    >>> asam_jax.sharpness(loss, rho=0.5, operator=asam_jax.identity(), m=1)(w, x)
    Array(1.75, dtype=float32)
    """
    ascent = _Ascent(loss_fn, rho, operator, p, steps, restarts, key)

    def measure(params: PyTree, batch: PyTree) -> jax.Array:
        _checks.real_floating("params", params)
        groups = enumerate(groups_of(batch, m))
        return mean(ascent.maximize(params, group, number)[0] for number, group in groups)

    return measure


def maximizer(
    loss_fn: LossFn,
    *,
    rho: Scalar,
    operator: Operator = elementwise(),  # noqa: B008 (a frozen value)
    p: float = 2.0,
    steps: int = 1,
    restarts: int = 2,
    key: jax.Array | None = None,
) -> Callable[[PyTree, PyTree], tuple[PyTree, jax.Array]]:
    """The perturbation that attains the sharpness of a batch as one group, and that sharpness.

        argmax over ||T_w^-1 eps||_p <= rho  of  L(w + eps),  as far as `steps` find it

    The arguments and errors are those of `sharpness`; the batch may be any tree.

    Returns:
      A function of (params, batch) that returns eps, of params' structure, shapes and dtypes, and
      L(w + eps) - L(w), as `sharpness` does.

    >>> import asam_jax, jax.numpy as jnp
    >>> loss = lambda w, batch: w[0] * w[1]
    >>> operator = asam_jax.elementwise(eta=0.0)
    >>> measure = asam_jax.maximizer(loss, rho=0.5, operator=operator, p=jnp.inf)
    >>> measure(jnp.array([3.0, 1.0]), ())
    (Array([1.5, 0.5], dtype=float32), Array(3.75, dtype=float32))
    """
    ascent = _Ascent(loss_fn, rho, operator, p, steps, restarts, key)

    def measure(params: PyTree, batch: PyTree) -> tuple[PyTree, jax.Array]:
        _checks.real_floating("params", params)
        (group,) = groups_of(batch, None)
        rise, eps = ascent.maximize(params, group, 0)
        return eps, rise

    return measure


def average_sharpness(
    loss_fn: LossFn,
    *,
    sigma: Scalar,
    operator: Operator = elementwise(),  # noqa: B008 (a frozen value)
    samples: int = 10,
) -> Callable[[PyTree, PyTree, jax.Array], jax.Array]:
    """Average-case adaptive sharpness: the mean increase of the loss under Gaussian noise.

        mean over eps ~ N(0, sigma^2 T_w^2) of L(w + eps)  -  L(w),  by `samples` draws

    The draws come in pairs eps, -eps, in which the loss's slope at w cancels; they depend on the
    key alone. For small sigma the mean is sigma^2 / 2 times the trace of T_w H T_w, H the Hessian.
    Its error falls with the square root of `samples`. See `sharpness` for what is compiled and
    when; under jit the draws are unrolled. (Andriushchenko et al. 2023; Keskar et al. 2017.)

    Args:
      loss_fn: see `sharpness`.
      sigma: standard deviation of T_w^-1 eps, a scalar of at least 0: for `elementwise` a relative
        change of the weights. ||T_w^-1 eps||_2 is about sigma sqrt(k) for k parameters.
      operator: T_w, taken at w. What `masked` freezes is not perturbed.
      samples: draws of eps, at least 1. Each costs a loss; L(w) one more.

    Returns:
      A function of (params, batch, key), key one of jax.random, that returns a scalar like that of
      `sharpness`. Errors are those of `sharpness`, and if sigma < 0 or samples < 1.

    >>> import asam_jax, jax, jax.numpy as jnp
    >>> loss = lambda w, x: jnp.mean(x @ jnp.square(w))
    >>> operator = asam_jax.elementwise(eta=0.0)
    >>> measure = asam_jax.average_sharpness(loss, sigma=0.1, samples=1000, operator=operator)
    >>> value = measure(jnp.array([3.0, 4.0]), jnp.ones((5, 2)), jax.random.key(0))
    >>> print(f"{value:.2f}")  # the mean is 0.1^2 (3^2 + 4^2) = 0.25
    0.24
    """
    loss = Loss(loss_fn)
    _operators.check(operator)
    _checks.number("sigma", sigma, 0.0)
    samples = _checks.count("samples", samples, 1)

    @jax.jit
    def noise(params: PyTree, part: Scalar, key: jax.Array, number: int) -> PyTree:
        """A part of a draw in the parameters' dtypes; an odd one is the last one's negative."""
        part = jnp.where(number % 2 == 1, -jnp.asarray(part), jnp.asarray(part))

        def eps(w: Any, t: Any, draw: jax.Array) -> jax.Array:
            t, width, share = (jnp.asarray(x).astype(draw.dtype) for x in (t, sigma, part))
            return (width * t * (share * draw)).astype(jnp.result_type(w))

        draws = _normal(params, jax.random.fold_in(key, number // 2))
        return jax.tree.map(eps, params, operator(params), draws)

    def measure(params: PyTree, batch: PyTree, key: jax.Array) -> jax.Array:
        _checks.real_floating("params", params)
        (group,) = groups_of(batch, None)
        at_w = loss.at(params, zeros(params), group)

        def rise(number: int, part: float) -> jax.Array:
            return loss.at(params, noise(params, part, key, number), group) - at_w

        value = mean(rise(number, 1.0) for number in range(samples))
        near = 2 * (samples // (2 * _PAIRS_TO_ONE))
        if near and jnp.finfo(value.dtype).bits <= 32:
            value = value - mean(rise(number, _HAIR) for number in range(near))
        return value

    return measure
