"""The gradient at w + eps, as a drop-in for jax.value_and_grad."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from asam_jax import _checks, _collectives
from asam_jax._checks import PyTree, Scalar
from asam_jax._collectives import AxisName
from asam_jax._operators import Operator, elementwise
from asam_jax._perturbation import perturbation


def is_zero(rho: Any) -> bool:
    """Whether rho is known to be zero while tracing, so that the second pass can be left out."""
    return isinstance(rho, (int, float)) and rho == 0


def ascended(
    params: PyTree,
    direction: PyTree,
    axis_name: AxisName = None,
    *,
    rho: Scalar,
    operator: Operator,
    p: Scalar,
) -> PyTree:
    """Returns w + eps, with eps along a direction; its gradient is each device's own."""
    eps = perturbation(params, direction, rho=rho, operator=operator, p=p)
    return _collectives.varying(jax.tree.map(jnp.add, params, eps), axis_name)


def value_and_grad(
    fun: Callable[..., Any],
    *,
    rho: Scalar,
    operator: Operator = elementwise(),  # noqa: B008 (a frozen value)
    p: Scalar = 2.0,
    has_aux: bool = False,
    axis_name: AxisName = None,
    perturb_axis_name: AxisName = None,
    ascent_fun: Callable[..., Any] | None = None,
) -> Callable[..., Any]:
    """Value at w and gradient at w + eps: `jax.value_and_grad` for a sharpness-aware step.

        eps = perturbation(w, grad L(w), rho=rho, operator=operator, p=p)
        value, grad = L(w), grad L(w + eps)

    Both passes are called with the same further arguments: the same batch and the same dropout
    key. The value and the auxiliary output (BatchNorm statistics, say) come from the first,
    unperturbed pass only. With rho = 0 as a Python number there is no second pass.

    Args:
      fun: `fun(params, *args, **kwargs)` -> a scalar, or `(scalar, aux)` with has_aux.
      rho: the radius, a scalar of at least 0; may be traced. See `perturbation`.
      operator: T_w. See `perturbation`.
      p: the order of the region's norm, from 1 to infinity.
      has_aux: whether fun returns `(scalar, aux)`.
      axis_name: mapped axis or axes (pmap, shard_map, vmap) over which value and gradient are
        averaged; aux is each device's own.
      perturb_axis_name: those of the axes over which the gradient that makes eps is averaged
        first. None: each device has its own eps (m-sharpness, m the local batch); equal to
        axis_name: one eps for all; some of the axes: one eps for each group.
      ascent_fun: what eps is made from, with fun's arguments, returning a scalar alone: fun on a
        sixteenth of the mini-batch, say, so that a step costs 1 1/16 gradients. None: fun. Else
        value and auxiliary output come from fun's only pass, the one at w + eps.

    Returns:
      A function with fun's arguments, params by position, that returns `(value, grad)`, or
      `((value, aux), grad)`; grad has the structure, shapes and dtypes of params.

    Raises:
      ValueError: if rho < 0 or p < 1 (where concrete), if an axis is not mapped, or if
        perturb_axis_name holds an axis that axis_name does not.
      TypeError: if fun or operator is not callable, or a leaf is not real floating point.

    >>> import asam_jax, jax.numpy as jnp
    >>> loss = lambda w, x: jnp.sum(w**2 * x)
    >>> step = asam_jax.value_and_grad(loss, rho=0.5, operator=asam_jax.identity())
    >>> step(jnp.array([3.0, 4.0]), jnp.ones(2))
    (Array(25., dtype=float32), Array([6.6, 8.8], dtype=float32))

    References:
      Kwon et al., ASAM, 2021, Algorithm 1; Foret et al., SAM, 2020 (m-sharpness).
    """
    _checks.function("fun", fun)
    _checks.function("operator", operator)
    if ascent_fun is not None:
        _checks.function("ascent_fun", ascent_fun)
    _checks.radius(rho)
    _checks.norm_order(p)
    _collectives.check_axes(axis_name, perturb_axis_name)
    both = jax.value_and_grad(fun, has_aux=has_aux)
    second_pass = jax.grad(fun, has_aux=has_aux)

    @functools.wraps(fun)
    def wrapped(params: PyTree, /, *args: Any, **kwargs: Any) -> Any:
        _collectives.check_mapped(axis_name)
        if not is_zero(rho):
            _checks.floating("params", params)
        params = _collectives.varying(params, axis_name)

        def climbed(grads: PyTree) -> PyTree:
            shared = _collectives.mean(grads, perturb_axis_name)
            return ascended(params, shared, axis_name, rho=rho, operator=operator, p=p)

        if is_zero(rho):
            result, grads = both(params, *args, **kwargs)
        elif ascent_fun is not None:
            at = climbed(jax.grad(ascent_fun)(params, *args, **kwargs))
            result, grads = both(at, *args, **kwargs)
        else:
            result, grads = both(params, *args, **kwargs)
            grads = second_pass(climbed(grads), *args, **kwargs)
            grads = grads[0] if has_aux else grads
        grads = _collectives.mean(grads, axis_name)
        if has_aux:
            return (_collectives.mean(result[0], axis_name), result[1]), grads
        return _collectives.mean(result, axis_name), grads

    return wrapped
