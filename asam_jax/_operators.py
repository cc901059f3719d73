"""Normalization operators: functions from parameters to the diagonal of T_w."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from asam_jax import _checks
from asam_jax._checks import PyTree
from asam_jax._dtypes import wide
from asam_jax._filters import (
    FilterAxes,
    LayerAxes,
    axes_of,
    flax_filter_axes,
    layers_of_haiku,
    torch_filter_axes,
)
from asam_jax._layouts import warn_of_other_layouts
from asam_jax._names import KeyPath
from asam_jax._rules import LeafPredicate, not_bias

Operator = Callable[[PyTree], PyTree]
"""T_w: from parameters to a tree of scales of at least 0, each broadcasting to its parameter."""


def _no_leaf(path: KeyPath, leaf: Any) -> bool:
    del path, leaf
    return False


def _elements(path: KeyPath, leaf: Any) -> None:
    del path, leaf


def _filter_norm(weights: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    """2-norm over `axes`, kept as axes of size one; safe from overflow and underflow.

    The unit is a constant to derivatives, which cancels: and the root is never taken at zero,
    where its derivative is infinite. The norm's is zero there.
    """
    largest = jnp.max(jnp.abs(weights), axis=axes, keepdims=True, initial=0.0)
    unit = jax.lax.stop_gradient(jnp.where(largest == 0, jnp.ones_like(largest), largest))
    squares = jnp.sum(jnp.square(weights / unit), axis=axes, keepdims=True)
    root = jnp.sqrt(jnp.where(squares == 0, jnp.ones_like(squares), squares))
    return unit * jnp.where(squares == 0, jnp.zeros_like(root), root)


@dataclasses.dataclass(frozen=True)
class _Normalization:
    """T_w by rules on the leaves; equal by value, so that compiled functions are found again."""

    eta: Any
    adapt: LeafPredicate
    filter_axes: FilterAxes
    layer_axes: LayerAxes

    def __post_init__(self) -> None:
        _checks.at_least("eta", self.eta, 0.0)
        _checks.function("adapt", self.adapt)
        _checks.function("filter_axes", self.filter_axes)
        if not (callable(self.layer_axes) or isinstance(self.layer_axes, tuple)):
            raise TypeError(
                f"layer_axes must be a tuple of axes or a rule (path, leaf) -> axes, got "
                f"{self.layer_axes!r}; (0,) says that the first axis of every leaf numbers layers."
            )

    def __call__(self, params: PyTree) -> PyTree:
        _checks.not_a_count(params)
        scales = jax.tree_util.tree_map_with_path(self._scale, params)
        if self.filter_axes in (flax_filter_axes, torch_filter_axes):
            warn_of_other_layouts(params, scales)
        return scales

    def _scale(self, path: KeyPath, leaf: Any) -> jax.Array:
        # eta = 0.01 beside a weight of 1 vanishes in bfloat16, so scales are float32 at least.
        dtype = wide(leaf)
        weights = jnp.asarray(leaf).astype(dtype)
        layers = self._layers(path, leaf)
        own = [axis for axis in range(weights.ndim) if axis not in layers]
        shape = tuple(weights.shape[axis] for axis in own)
        layer = jax.ShapeDtypeStruct(shape, jnp.result_type(leaf)) if layers else leaf
        if not self.adapt(path, layer):
            return jnp.ones((1,) * weights.ndim, dtype)
        axes = self.filter_axes(path, layer)
        if axes is None:
            scale = jnp.abs(weights)
        else:
            axes = axes_of("filter_axes", path, layer, axes)
            scale = _filter_norm(weights, tuple(own[axis] for axis in axes))
        return scale + jnp.asarray(self.eta).astype(dtype)

    def _layers(self, path: KeyPath, leaf: Any) -> tuple[int, ...]:
        axes = self.layer_axes(path, leaf) if callable(self.layer_axes) else self.layer_axes
        return () if axes is None else axes_of("layer_axes", path, leaf, axes)


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
    return _Normalization(0.0, _no_leaf, _elements, ())


def elementwise(
    eta: float | jax.Array = 0.01,
    *,
    adapt: LeafPredicate = not_bias,
    layer_axes: LayerAxes = layers_of_haiku,
) -> Operator:
    """The element-wise operator T_w = diag(|w_1|, ..., |w_k|) + eta I.

    Args:
      eta: added to every scale, for stability; a scalar of at least 0, in the parameters' units.
        With eta = 0 a weight of exactly zero is not perturbed.
      adapt: `adapt(path, leaf) -> bool`; where False, T = 1 exactly (no eta). `not_bias` is the
        authors' rule, `all_leaves` Equation 5 to the letter.
      layer_axes: which axes number layers, where layers are stacked; `adapt` is handed one layer.
        See `filterwise`.

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
    return _Normalization(eta, adapt, _elements, layer_axes)


def filterwise(
    eta: float | jax.Array = 0.01,
    *,
    adapt: LeafPredicate = not_bias,
    filter_axes: FilterAxes = flax_filter_axes,
    layer_axes: LayerAxes = layers_of_haiku,
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
      layer_axes: which axes number layers, where the layers of a model are stacked in one leaf
        (`nn.scan`, `nnx.scan`, `eqx.filter_vmap`): a tuple of axes for every leaf, (0,) say, or a
        rule `layer_axes(path, leaf)` -> axes, or None for none. `adapt` and `filter_axes` are
        handed one layer, as a `jax.ShapeDtypeStruct`, and count axes in it; each layer has filters
        of its own, as if it were not stacked. By default the layers of Haiku's `layer_stack` are
        known by its modules' names, and no others.

    Returns:
      An operator: a function from parameters to a tree of scales. The scale of a filter is
      never spread out over it: (1, .., 1, out) for a kernel (*spatial, in, out).

    Raises:
      ValueError: if eta is negative, or a rule gives axes that a leaf does not have.
      TypeError: if eta is not a scalar, adapt or filter_axes is not callable, or layer_axes is
        neither a tuple nor callable.

    Warns:
      UserWarning: with the two rules of the library, where the bias next to a kernel has not one
        entry for each filter, since then the kernel is transposed, stacked or laid out otherwise.

    >>> import asam_jax, jax.numpy as jnp
    >>> kernel = jnp.ones((3, 3, 1, 2)) * jnp.array([[[[1.0, 2.0]]]])
    >>> asam_jax.filterwise(eta=0.0)({"kernel": kernel})["kernel"]
    Array([[[[3., 6.]]]], dtype=float32)
    >>> layers = {"kernel": jnp.stack([kernel, 10 * kernel])}
    >>> asam_jax.filterwise(eta=0.0, layer_axes=(0,))(layers)["kernel"].reshape(2, 2)
    Array([[ 3.,  6.],
           [30., 60.]], dtype=float32)

    References:
      Kwon et al., ASAM, 2021, Equation 5.
    """
    return _Normalization(eta, adapt, filter_axes, layer_axes)
