"""Average-case adaptive sharpness: the rise of the loss under Gaussian noise in units of T_w."""

import functools

import jax
import jax.numpy as jnp

from asam_jax import _checks
from asam_jax._batches import divisor, piece, rolled, size_of
from asam_jax._checks import PyTree, Scalar
from asam_jax._dtypes import wide
from asam_jax._means import mean_over
from asam_jax._objective import Losses, LossFn, Objective, scales_of
from asam_jax._operators import Operator, elementwise

# Where L(w) is measured, once for so many pairs of draws, and how far from w, in units of a draw:
# far enough to be rounded anew, and near enough to rise by a millionth of what a draw does.
_PAIRS_TO_ONE = 16
_HAIR = 2.0**-10


@jax.jit
def _noise(
    params: PyTree,
    scales: PyTree,
    sigma: Scalar,
    part: Scalar,
    key: jax.Array,
    index: int | jax.Array,
) -> PyTree:
    """A part of draw `index` of N(0, sigma^2 T_w^2); odd ones negate the last.

    In the parameters' dtypes.
    """
    key = jax.random.fold_in(key, index // 2)
    part = jnp.asarray(part)
    part = jnp.where(index % 2 == 1, -part, part)
    leaves, treedef = jax.tree.flatten(params)
    eps = []
    for number, (leaf, scale) in enumerate(zip(leaves, jax.tree.leaves(scales), strict=True)):
        dtype = wide(leaf)
        draw = jax.random.normal(jax.random.fold_in(key, number), jnp.shape(leaf), dtype)
        factor = jnp.asarray(sigma).astype(dtype) * jnp.asarray(scale).astype(dtype)
        eps.append((factor * (part.astype(dtype) * draw)).astype(jnp.result_type(leaf)))
    return jax.tree.unflatten(treedef, eps)


def average_sharpness(
    loss_fn: LossFn,
    params: PyTree,
    batch: PyTree,
    *,
    sigma: Scalar,
    key: jax.Array,
    samples: int = 10,
    operator: Operator = elementwise(),  # noqa: B008 (a frozen value)
    batch_size: int | None = None,
) -> jax.Array:
    """Average-case adaptive sharpness: the mean rise of the loss under Gaussian noise.

        mean over eps ~ N(0, sigma^2 T_w^2) of L(w + eps)  -  L(w),  by `samples` draws

    Noise of standard deviation sigma in the coordinates T_w^-1 eps: with eta = 0 as invariant to
    rescaling as `sharpness`, draw by draw. The draws come in pairs eps, -eps, in which the
    loss's slope at w cancels; they depend on the key alone, not on batch_size. For small sigma
    the mean is sigma^2 / 2 times the trace of T_w H T_w, H the Hessian. It is an estimate: its
    error falls with the square root of `samples`. The losses' differences are averaged, in which
    float32's rounding of the single ones averages out, too.

    Called with concrete arrays it loops in Python over draws and pieces with one compiled
    function; under jit it becomes part of the program. See `sharpness`, also for models in
    evaluation and in training mode.

    Args:
      loss_fn: `loss_fn(params, batch)` -> the mean loss over the batch, a scalar.
      params: a tree of real floating-point arrays, w.
      batch: a tree of arrays with a leading axis of examples; NumPy arrays are fine.
      sigma: standard deviation of T_w^-1 eps, a scalar of at least 0: for the element-wise
        operator a relative change of the weights. Draws have a norm ||T_w^-1 eps||_2 of about
        sigma sqrt(k) for k parameters, to compare with a radius rho.
      key: a key of jax.random.
      samples: draws of eps, at least 1; an odd one out has no partner. Each costs a loss; L(w)
        one more.
      operator: T_w, taken at w. See `perturbation`.
      batch_size: examples that loss_fn sees at once; must divide the batch. None for all.

    Returns:
      A scalar in the loss's units; float32, or the loss's dtype where that is wider.

    Raises:
      ValueError: if batch_size does not divide the batch, sigma < 0 or samples < 1.
      TypeError: if loss_fn or operator is not callable, if loss_fn returns no
        real scalar, or if a leaf is not real floating point.

    >>> import asam_jax, jax, jax.numpy as jnp
    >>> loss = lambda w, x: jnp.mean(x @ jnp.square(w))
    >>> w, x = jnp.array([3.0, 4.0]), jnp.ones((5, 2))
    >>> value = asam_jax.average_sharpness(
    ...     loss, w, x, sigma=0.1, key=jax.random.key(0), samples=1000,
    ...     operator=asam_jax.elementwise(eta=0.0))
    >>> print(f"{value:.2f}")  # the mean is 0.1^2 (3^2 + 4^2) = 0.25
    0.24

    References:
      Keskar et al., 2017; Andriushchenko et al., A modern look at the relationship between
      sharpness and generalization, 2023.
    """
    losses = Losses(loss_fn)
    _checks.at_least("sigma", sigma, 0.0)
    samples = _checks.count("samples", samples, 1)
    examples = size_of(batch)
    size = divisor("batch_size", batch_size, examples, "the batch")
    scales = scales_of(operator, params)
    roll = rolled(params, batch, sigma, key)
    pieces = functools.partial(piece, batch, size=size)
    objective = Objective(losses, params, examples // size, pieces, roll).begun()

    def rise(index: int | jax.Array, part: float) -> jax.Array:
        return objective.rise(_noise(params, scales, sigma, part, key, index))

    value = mean_over(samples, lambda index: rise(index, 1.0), roll=roll)
    near = 2 * (samples // (2 * _PAIRS_TO_ONE))
    if near and jnp.finfo(value.dtype).bits <= 32:
        value = value - mean_over(near, lambda index: rise(index, _HAIR), roll=roll)
    return value
