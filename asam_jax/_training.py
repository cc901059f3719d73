"""What a training loop calls: ASAM and SAM as optimizers, value_and_grad in place of JAX's."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from asam_jax import _checks, _collectives
from asam_jax._operators import elementwise, identity
from asam_jax._perturbation import perturbation
from asam_jax._transform import sharpness_aware
from asam_jax.typing import AxisName, Descent, Operator, PyTree, Radius, Scalar


def asam(
    base: optax.GradientTransformation,
    rho: Radius = 2.0,
    *,
    eta: Scalar = 0.0,
    operator: Operator | None = None,
    p: float | None = None,
    every: int | None = None,
    ascent: optax.GradientTransformation | None = None,
    descent: Descent | None = None,
    axis_name: AxisName = None,
    perturb_axis_name: AxisName = None,
    sharded_axis_name: AxisName = None,
) -> optax.GradientTransformationExtraArgs:
    """ASAM (Kwon et al. 2021): `chain(sharpness_aware(rho, operator=elementwise(eta)), base)`.

    Args:
      base: the optimizer that takes the step, weight decay included. It may be `optax.lbfgs()` or
        another line search: it is not given `grad_fn` and `perturb`.
      rho: the radius or a schedule of it, to be tuned by factors of two. The authors' 0.5 and 1.0
        belong to their rule, `operator=elementwise(0.01, adapt=not_bias)`.
      eta: added to the element-wise scales |w|; at least 0.
      operator: T_w in place of `elementwise(eta)`.

    The other arguments, the keywords of update and the errors are those of `sharpness_aware`.

    >>> import asam_jax, jax, jax.numpy as jnp, optax
    >>> grad_fn = jax.grad(lambda w: jnp.sum(w**2))
    >>> w = jnp.array([3.0, 4.0])
    >>> tx = asam_jax.asam(optax.sgd(0.1), rho=0.5)
    >>> updates, state = tx.update(grad_fn(w), tx.init(w), w, grad_fn=grad_fn)
    >>> print(optax.apply_updates(w, updates).round(4))
    [2.2529 2.8514]
    """
    transformation = sharpness_aware(
        rho,
        operator=elementwise(eta) if operator is None else operator,
        p=p,
        every=every,
        ascent=ascent,
        descent=descent,
        axis_name=axis_name,
        perturb_axis_name=perturb_axis_name,
        sharded_axis_name=sharded_axis_name,
    )
    return optax.chain(transformation, _checks.base_optimizer(base))


def sam(
    base: optax.GradientTransformation,
    rho: Radius = 0.05,
    *,
    operator: Operator | None = None,
    p: float | None = None,
    every: int | None = None,
    ascent: optax.GradientTransformation | None = None,
    descent: Descent | None = None,
    axis_name: AxisName = None,
    perturb_axis_name: AxisName = None,
    sharded_axis_name: AxisName = None,
) -> optax.GradientTransformationExtraArgs:
    """SAM (Foret et al. 2020): `asam` with T_w = I, and rho in the parameters' units.

    `operator` stands in place of `identity()`, as `masked(identity(), mask)` does; all else is as
    in `asam`.

    >>> import asam_jax, optax
    >>> tx = asam_jax.sam(optax.sgd(0.1, momentum=0.9), rho=0.05)
    """
    return asam(
        base,
        rho,
        operator=identity() if operator is None else operator,
        p=p,
        every=every,
        ascent=ascent,
        descent=descent,
        axis_name=axis_name,
        perturb_axis_name=perturb_axis_name,
        sharded_axis_name=sharded_axis_name,
    )


def value_and_grad(
    loss_fn: Callable[..., Any],
    *,
    rho: Scalar,
    operator: Operator = elementwise(),  # noqa: B008 (a frozen value)
    p: float = 2.0,
    has_aux: bool = False,
    ascent_fun: Callable[..., Any] | None = None,
    axis_name: AxisName = None,
    perturb_axis_name: AxisName = None,
    sharded_axis_name: AxisName = None,
) -> Callable[..., Any]:
    """Value at w and gradient at w + eps: `jax.value_and_grad` for a sharpness-aware step.

        eps = perturbation(w, grad L(w), rho=rho, operator=operator, p=p)
        value, grad = L(w), grad L(w + eps)

    Both passes are called with the same further arguments: the same batch and the same dropout
    key. Value and auxiliary output (BatchNorm statistics, say) come from the first pass, at w.
    (Kwon et al. 2021, Algorithm 1.)

    Args:
      loss_fn: `loss_fn(params, *args, **kwargs)` -> a scalar, or `(scalar, aux)` with has_aux.
      rho: the radius, a scalar of at least 0; may be traced. With 0 as a Python number there is no
        second pass.
      operator: see `perturbation`, as for p and sharded_axis_name.
      has_aux: whether loss_fn returns `(scalar, aux)`.
      ascent_fun: the loss that eps is made from, with loss_fn's arguments and no aux: that of a
        sixteenth of the mini-batch, say, so that a step costs 1 1/16 gradients. Then value and
        auxiliary output are those at w + eps. None for loss_fn.
      axis_name: mapped axis or axes (pmap, shard_map, vmap) over which value and gradient are
        averaged; aux is each device's own. Leave it out where loss_fn averages over them itself.
      perturb_axis_name: see `sharpness_aware`.

    Returns:
      A function with loss_fn's arguments, params by position, that returns `(value, grad)`, or
      `((value, aux), grad)`; grad has the structure, shapes and dtypes of params.

    Errors are those of `sharpness_aware`; rho must not be a schedule: call it with the step.

    >>> import asam_jax, jax.numpy as jnp
    >>> loss = lambda w, x: jnp.sum(w**2 * x)
    >>> step = asam_jax.value_and_grad(loss, rho=0.5, operator=asam_jax.identity())
    >>> step(jnp.array([3.0, 4.0]), jnp.ones(2))
    (Array(25., dtype=float32), Array([6.6, 8.8], dtype=float32))
    """
    _checks.region(rho, operator, p)
    axes, shared, _ = _collectives.check_names(axis_name, perturb_axis_name, sharded_axis_name)
    skips = isinstance(rho, (int, float)) and rho == 0
    both = jax.value_and_grad(loss_fn, has_aux=has_aux)
    region: Any = dict(rho=rho, operator=operator, p=p, sharded_axis_name=sharded_axis_name)

    @functools.wraps(loss_fn)
    def wrapped(params: PyTree, /, *args: Any, **kwargs: Any) -> Any:
        _collectives.check_mapped("axis_name", axes)
        _checks.real_floating("params", params)
        w = _collectives.vary(params, axes)

        def at(grads: PyTree) -> PyTree:
            eps = perturbation(params, _collectives.mean(grads, shared), **region)
            return _collectives.vary(jax.tree.map(jnp.add, params, eps), axes)

        leaves, treedef = jax.tree.flatten((args, kwargs))

        def of(function: Callable[..., Any], params: PyTree) -> Any:
            args, kwargs = treedef.unflatten(leaves)  # anew: an equinox.nn.State serves one pass
            return function(params, *args, **kwargs)

        if skips:
            result, grads = of(both, w)
        elif ascent_fun is not None:
            result, grads = of(both, at(of(jax.grad(ascent_fun), w)))
        else:
            result, grads = of(both, w)
            grads = of(both, at(grads))[1]
        value = result[0] if has_aux else result
        _collectives.check_own("the loss", value, axes)
        value, grads = _collectives.mean(value, axes), _collectives.mean(grads, axes)
        return ((value, result[1]) if has_aux else value), grads

    return wrapped
