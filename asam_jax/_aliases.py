"""ASAM and SAM: the link in front of a base optimizer."""

import jax
import optax

from asam_jax import _checks
from asam_jax._checks import Scalar
from asam_jax._collectives import AxisName
from asam_jax._extras import without_own
from asam_jax._operators import elementwise, identity
from asam_jax._transform import Radius, sharpness_aware


def asam(
    base: optax.GradientTransformation,
    rho: Radius = 0.5,
    *,
    eta: float | jax.Array = 0.01,
    p: Scalar = 2.0,
    axis_name: AxisName = None,
    perturb_axis_name: AxisName = None,
) -> optax.GradientTransformationExtraArgs:
    """ASAM: `optax.chain(sharpness_aware(rho, operator=elementwise(eta)), base)`.

    Args:
      base: the optimizer that takes the step; weight decay belongs into it. It may be
        `optax.lbfgs()` or another line search, from which `grad_fn` and `climb` are kept.
      rho: the radius or a schedule of it. The authors use 0.5 on CIFAR-10, 1.0 on CIFAR-100.
      eta: stability of the element-wise scales |w| + eta; at least 0.
      p: the order of the region's norm, from 1 to infinity.
      axis_name: see `sharpness_aware`.
      perturb_axis_name: see `sharpness_aware`.

    Returns:
      A transformation whose update takes the keywords of `sharpness_aware`'s; others go to base.

    Raises:
      ValueError: if rho < 0, eta < 0 or p < 1 (where concrete).
      TypeError: if base is not an optax transformation.

    >>> import asam_jax, jax, jax.numpy as jnp, optax
    >>> grad_fn = jax.grad(lambda w: jnp.sum(w**2))
    >>> w = jnp.array([3.0, 4.0])
    >>> tx = asam_jax.asam(optax.sgd(0.1), rho=0.5)
    >>> updates, state = tx.update(grad_fn(w), tx.init(w), w, grad_fn=grad_fn)
    >>> print(optax.apply_updates(w, updates).round(4))
    [2.2523 2.8506]

    References:
      Kwon et al., ASAM, 2021.
    """
    _checks.transformation("base", base)
    link = sharpness_aware(
        rho,
        operator=elementwise(eta),
        p=p,
        axis_name=axis_name,
        perturb_axis_name=perturb_axis_name,
    )
    return optax.chain(link, without_own(base))


def sam(
    base: optax.GradientTransformation,
    rho: Radius = 0.05,
    *,
    p: Scalar = 2.0,
    axis_name: AxisName = None,
    perturb_axis_name: AxisName = None,
) -> optax.GradientTransformationExtraArgs:
    """SAM: `optax.chain(sharpness_aware(rho, operator=identity()), base)`.

    Args:
      base: the optimizer that takes the step; weight decay belongs into it. It may be
        `optax.lbfgs()` or another line search, from which `grad_fn` and `climb` are kept.
      rho: the radius or a schedule of it, in the parameters' units.
      p: the order of the region's norm, from 1 to infinity.
      axis_name: see `sharpness_aware`.
      perturb_axis_name: see `sharpness_aware`.

    Returns:
      A transformation whose update takes the keywords of `sharpness_aware`'s; others go to base.

    Raises:
      ValueError: if rho < 0 or p < 1 (where concrete).
      TypeError: if base is not an optax transformation.

    >>> import asam_jax, jax, jax.numpy as jnp, optax
    >>> grad_fn = jax.grad(lambda w: jnp.sum(w**2))
    >>> w = jnp.array([3.0, 4.0])
    >>> tx = asam_jax.sam(optax.sgd(0.1), rho=0.5)
    >>> updates, state = tx.update(grad_fn(w), tx.init(w), w, grad_fn=grad_fn)
    >>> optax.apply_updates(w, updates)
    Array([2.34, 3.12], dtype=float32)

    References:
      Foret et al., Sharpness-Aware Minimization, 2020.
    """
    _checks.transformation("base", base)
    link = sharpness_aware(
        rho, operator=identity(), p=p, axis_name=axis_name, perturb_axis_name=perturb_axis_name
    )
    return optax.chain(link, without_own(base))
