"""Normalization operators: functions from parameters to the diagonal of T_w."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from asam_jax import _checks
from asam_jax._checks import PyTree
from asam_jax._dtypes import wide
from asam_jax._rules import FilterAxes, KeyPath, LeafPredicate, flax_filter_axes, not_bias

Operator = Callable[[PyTree], PyTree]
"""T_w: from parameters to a tree of scales of at least 0, each broadcasting to its parameter."""


def _no_leaf(path: KeyPath, leaf: Any) -> bool:
    del path, leaf
    return False


def _elements(path: KeyPath, leaf: Any) -> None:
    del path, leaf


def _filter_norm(weights: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    """2-norm over `axes`, kept as axes of size one; safe from overflow and underflow."""
    largest = jnp.max(jnp.abs(weights), axis=axes, keepdims=True, initial=0.0)
    unit = jnp.where(largest == 0, jnp.ones_like(largest), largest)
    return largest * jnp.sqrt(jnp.sum(jnp.square(weights / unit), axis=axes, keepdims=True))


@dataclasses.dataclass(frozen=True)
class _Normalization:
    """T_w by rules on the leaves; equal by value, so that compiled functions are found again."""

    eta: Any
    adapt: LeafPredicate
    filter_axes: FilterAxes

    def __post_init__(self) -> None:
        _checks.at_least("eta", self.eta, 0.0)
        _checks.function("adapt", self.adapt)
        _checks.function("filter_axes", self.filter_axes)

    def __call__(self, params: PyTree) -> PyTree:
        return jax.tree_util.tree_map_with_path(self._scale, params)

    def _scale(self, path: KeyPath, leaf: Any) -> jax.Array:
        # eta = 0.01 beside a weight of 1 vanishes in bfloat16, so scales are float32 at least.
        dtype = wide(leaf)
        weights = jnp.asarray(leaf).astype(dtype)
        if not self.adapt(path, leaf):
            return jnp.ones((1,) * weights.ndim, dtype)
        axes = self.filter_axes(path, leaf)
        scale = jnp.abs(weights) if axes is None else _filter_norm(weights, axes)
        return scale + jnp.asarray(self.eta).astype(dtype)


def identity() -> Operator:
    """The operator of SAM: T_w = I.

    Returns:
      An operator: a function from parameters to a tree of scales. Each scale has its parameter's
      rank and size one along every axis; its dtype is float32, or the parameter's where wider.

    >>> import asam_jax, jax.numpy as jnp
    >>> asam_jax.identity()({"kernel": jnp.array([[3.0, -4.0]])})
    {'kernel': Array([[1.]], dtype=float32)}

    References:
      Foret et al., Sharpness-Aware Minimization, 2020.
    """
    return _Normalization(0.0, _no_leaf, _elements)


def elementwise(eta: float | jax.Array = 0.01, *, adapt: LeafPredicate = not_bias) -> Operator:
    """The element-wise operator T_w = diag(|w_1|, ..., |w_k|) + eta I.

    Args:
      eta: added to every scale, for stability; a scalar of at least 0, in the parameters' units.
        With eta = 0 a weight of exactly zero is not perturbed.
      adapt: `adapt(path, leaf) -> bool`; where False, T = 1 exactly (no eta). `not_bias` is the
        authors' rule, `all_leaves` Equation 5 to the letter.

    Returns:
      An operator: a function from parameters to a tree of scales, each of its parameter's shape,
      or of size one along every axis where `adapt` is False; float32, or wider as the parameter.

    Raises:
      ValueError: if eta is negative.
      TypeError: if eta is not a scalar or adapt is not callable.

    >>> import asam_jax, jax.numpy as jnp
    >>> asam_jax.elementwise(eta=0.5)({"w": jnp.array([3.0, -4.0]), "b": jnp.array([7.0])})
    {'b': Array([1.], dtype=float32), 'w': Array([3.5, 4.5], dtype=float32)}

    References:
      Kwon et al., ASAM, 2021, Section 4.
    """
    return _Normalization(eta, adapt, _elements)


def filterwise(
    eta: float | jax.Array = 0.01,
    *,
    adapt: LeafPredicate = not_bias,
    filter_axes: FilterAxes = flax_filter_axes,
) -> Operator:
    """The filter-wise operator: the 2-norm of its filter for each weight of a convolution.

    T_w = diag(||f_1||_2 1, ..., ||f_m||_2 1, |w_1|, ..., |w_q|) + eta I, where f_i is everything
    that makes one output channel and w_j belongs to no filter.

    Args:
      eta: added to every scale, for stability; a scalar of at least 0, in the parameters' units.
      adapt: `adapt(path, leaf) -> bool`; where False, T = 1 exactly (no eta).
      filter_axes: `filter_axes(path, leaf)` -> the axes that one filter spans, or None for
        element-wise scales. `flax_filter_axes` serves Flax and Haiku, `torch_filter_axes` Equinox
        and PyTorch layouts.

    Returns:
      An operator: a function from parameters to a tree of scales. The scale of a filter is
      never spread out over it: (1, .., 1, out) for a kernel (*spatial, in, out).

    Raises:
      ValueError: if eta is negative.
      TypeError: if eta is not a scalar, or adapt or filter_axes is not callable.

    >>> import asam_jax, jax.numpy as jnp
    >>> kernel = jnp.ones((3, 3, 1, 2)) * jnp.array([[[[1.0, 2.0]]]])
    >>> asam_jax.filterwise(eta=0.0)({"kernel": kernel})["kernel"]
    Array([[[[3., 6.]]]], dtype=float32)

    References:
      Kwon et al., ASAM, 2021, Equation 5.
    """
    return _Normalization(eta, adapt, filter_axes)
