"""Adaptive sharpness of a loss: the largest increase near w, Equation 4, and the average one."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from asam_jax import _checks
from asam_jax._operators import elementwise
from asam_jax._perturbation import perturbation
from asam_jax._radius import Loss, LossFn, groups_of, mean
from asam_jax._tree import widened
from asam_jax.typing import Operator, PyTree, Scalar

_SHRINK = 0.7  # what a decrease of the loss leaves of the ascent's stride; 0.5 stops some too early


def _ascent(
    loss_fn: LossFn, rho: Scalar, operator: Operator, p: float, steps: int
) -> Callable[[PyTree, PyTree], tuple[jax.Array, PyTree]]:
    """From (params, group) to L(w + eps) - L(w) and eps, for the best eps found."""
    _checks.region(rho, operator, p)
    steps = _checks.count("steps", steps, 1)
    loss = Loss(loss_fn)
    corner = functools.partial(perturbation, rho=rho, operator=operator, p=p)

    def one_step(params: PyTree, group: PyTree) -> tuple[jax.Array, PyTree]:
        at_w, grads = loss.with_grad(params, optax.tree.zeros_like(params), group)
        eps = corner(params, grads)
        return loss.at(params, eps, group) - at_w, eps

    @jax.jit
    def move(params: PyTree, eps: PyTree, grads: PyTree, stride: jax.Array) -> PyTree:
        # A convex combination of two points of the region lies in it, for every p: no projection.
        to = corner(params, grads)
        return jax.tree.map(lambda e, c: e + stride.astype(e.dtype) * (c - e), eps, to)

    @jax.jit
    def judge(here: tuple, best: tuple, last: jax.Array, stride: jax.Array) -> tuple:
        better = (here[0] > best[0]) | jnp.isnan(here[0])
        best = jax.tree.map(lambda a, b: jax.lax.select_n(better, b, a), here, best)
        return best, jnp.where(here[0] < last, _SHRINK * stride, stride)

    def many_steps(params: PyTree, group: PyTree) -> tuple[jax.Array, PyTree]:
        eps = optax.tree.zeros_like(params)
        at_w, grads = loss.with_grad(params, eps, group)
        rise, stride = at_w - at_w, jnp.ones_like(at_w)
        best = (rise, eps)
        for step in range(1, steps + 1):
            eps, last = move(params, eps, grads, stride), rise
            if step < steps:
                value, grads = loss.with_grad(params, eps, group)
            else:
                value = loss.at(params, eps, group)
            rise = value - at_w
            best, stride = judge((rise, eps), best, last, stride)
        return best

    return jax.jit(one_step) if steps == 1 else many_steps


def sharpness(
    loss_fn: LossFn,
    *,
    rho: Scalar,
    operator: Operator = elementwise(),  # noqa: B008 (a frozen value)
    p: float = 2.0,
    m: int | None = None,
    steps: int = 1,
) -> Callable[[PyTree, PyTree], jax.Array]:
    """Adaptive sharpness, averaged over groups of m examples (Kwon et al. 2021, Equation 4).

        mean over groups of  max over ||T_w^-1 eps||_p <= rho  of  L(w + eps) - L(w)

    With one step eps is `perturbation`, as in training, and the value can be negative. With more,
    each step moves towards the maximizer of the linearisation at the current point, the whole way
    at first and 0.7 times as far after each fall of the loss (Frank-Wolfe). It stays in the region,
    and is as invariant to rescaling as that is. The best loss counts, never less than L(w): a lower
    bound of the maximum.

    Keep the function: `measure = sharpness(loss, rho=0.5)` once, `measure(params, batch)` in each
    epoch. It compiles in the first call, with the semantics of `jax.jit` for what loss_fn closes
    over. The batch may be a whole data set as NumPy arrays, of which one group at a time goes to
    the device; under jit the groups are unrolled. Inside shard_map the value is each device's own.
    It is no finer than the rounding of the losses: of a large loss measure in float64.

    Args:
      loss_fn: `loss_fn(params, batch)` -> the mean loss over the batch, a scalar.
      rho: see `perturbation`, as for operator (T_w, taken at w) and p.
      m: examples in a group; must divide the batch. None for the whole batch, any tree, as one.
        Of a batch sharded in an explicit mesh, each device must have its share of a group.
      steps: at least 1; each costs a gradient, and the last a loss more.

    Returns:
      A function of (params, batch) that returns a scalar in the loss's units; float32, or the
      loss's dtype where that is wider.

    Errors are those of `perturbation`; a ValueError if m does not divide the batch.

    >>> import asam_jax, jax.numpy as jnp
    >>> loss = lambda w, x: jnp.mean(x @ w)
    >>> w, x = jnp.array([3.0, 4.0]), jnp.array([[3.0, 0.0], [0.0, 4.0]])
    >>> asam_jax.sharpness(loss, rho=0.5, operator=asam_jax.identity(), m=1)(w, x)
    Array(1.75, dtype=float32)
    """
    ascent = _ascent(loss_fn, rho, operator, p, steps)

    def measure(params: PyTree, batch: PyTree) -> jax.Array:
        return mean(ascent(params, group)[0] for group in groups_of(batch, m))

    return measure


def maximizer(
    loss_fn: LossFn,
    *,
    rho: Scalar,
    operator: Operator = elementwise(),  # noqa: B008 (a frozen value)
    p: float = 2.0,
    steps: int = 1,
) -> Callable[[PyTree, PyTree], tuple[PyTree, jax.Array]]:
    """The perturbation that attains the sharpness of a batch as one group, and that sharpness.

        argmax over ||T_w^-1 eps||_p <= rho  of  L(w + eps),  as far as `steps` find it

    The arguments and errors are those of `sharpness`.

    Returns:
      A function of (params, batch) that returns eps, a tree like params, and L(w + eps) - L(w).

    >>> import asam_jax, jax.numpy as jnp
    >>> loss = lambda w, batch: w[0] * w[1]
    >>> operator = asam_jax.elementwise()
    >>> measure = asam_jax.maximizer(loss, rho=0.5, operator=operator, p=jnp.inf)
    >>> measure(jnp.array([3.0, 1.0]), ())
    (Array([1.5, 0.5], dtype=float32), Array(3.75, dtype=float32))
    """
    ascent = _ascent(loss_fn, rho, operator, p, steps)

    def measure(params: PyTree, batch: PyTree) -> tuple[PyTree, jax.Array]:
        (group,) = groups_of(batch, None)
        rise, eps = ascent(params, group)
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

    The draws come in pairs eps, -eps, in which the loss's slope at w cancels. For small sigma the
    mean is sigma^2 / 2 times the trace of T_w H T_w, H the Hessian. Under jit the draws are
    unrolled. (Andriushchenko et al. 2023; Keskar et al. 2017.)

    Args:
      loss_fn: see `sharpness`, as for operator and the errors.
      sigma: standard deviation of T_w^-1 eps, a scalar of at least 0: for `elementwise` a relative
        change of the weights. ||T_w^-1 eps||_2 is about sigma sqrt(k) for k parameters.
      samples: draws of eps, at least 1. Each costs a loss; L(w) one more.

    Returns:
      A function of (params, batch, key), key one of jax.random, like that of `sharpness`.

    >>> import asam_jax, jax, jax.numpy as jnp
    >>> loss = lambda w, x: jnp.mean(x @ jnp.square(w))
    >>> operator = asam_jax.elementwise()
    >>> measure = asam_jax.average_sharpness(loss, sigma=0.1, samples=1000, operator=operator)
    >>> value = measure(jnp.array([3.0, 4.0]), jnp.ones((5, 2)), jax.random.key(0))
    >>> print(f"{value:.2f}")  # the mean is 0.1^2 (3^2 + 4^2) = 0.25
    0.24
    """
    loss = Loss(loss_fn)
    _checks.number("sigma", sigma, 0.0)
    samples = _checks.count("samples", samples, 1)

    @jax.jit
    def draw(params: PyTree, key: jax.Array, number: int) -> PyTree:
        """An eps in the parameters' dtypes; an odd one is the last one's negative."""
        noise = optax.tree.random_like(jax.random.fold_in(key, number // 2), widened(params))
        width = jnp.where(number % 2 == 1, -jnp.asarray(sigma), jnp.asarray(sigma))

        def eps(w: jax.Array, t: jax.Array, z: jax.Array) -> jax.Array:
            return (width.astype(z.dtype) * t.astype(z.dtype) * z).astype(w.dtype)

        params, scales = jax.tree.map(jnp.asarray, (params, operator(params)))
        return jax.tree.map(eps, params, scales, noise)

    def measure(params: PyTree, batch: PyTree, key: jax.Array) -> jax.Array:
        (group,) = groups_of(batch, None)
        at_w = loss.at(params, optax.tree.zeros_like(params), group)
        eps = (draw(params, key, number) for number in range(samples))
        return mean(loss.at(params, each, group) - at_w for each in eps)

    return measure
