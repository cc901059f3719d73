"""Normalization operators T_w: functions from parameters to a tree of scales."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from asam_jax import _checks, _tree
from asam_jax._leaf_rules import all_leaves, flax_filter_axes
from asam_jax.typing import FilterAxes, KeyPath, LayerAxes, LeafPredicate, Operator, PyTree, Scalar


def _none(*_: Any) -> None:
    """The rule that holds for no leaf."""


def _refuse_count(params: PyTree) -> None:
    """Raises where an operator is called as a schedule is, with the count of updates."""
    if jnp.issubdtype(getattr(params, "dtype", jnp.float32), jnp.integer):
        raise TypeError(
            "operator was called with an integer: optax.inject_hyperparams takes every function "
            'for a schedule. Give it static_args=("operator",).'
        )


@dataclasses.dataclass(frozen=True)
class _Normalization:
    """T_w by rules on the leaves, with a hash, as what an optimizer closes over must have."""

    eta: Any
    adapt: Callable[[KeyPath, Any], bool | None]
    filter_axes: FilterAxes
    layer_axes: LayerAxes

    def __call__(self, params: PyTree) -> PyTree:
        _refuse_count(params)
        return jax.tree_util.tree_map_with_path(self._scale, params)

    def _scale(self, path: KeyPath, leaf: Any) -> jax.Array:
        # eta = 0.01 beside a weight of 1 vanishes in bfloat16, so scales are float32 at least.
        dtype = _tree.wide(leaf)
        weights = jnp.asarray(leaf).astype(dtype)
        stacked = self.layer_axes(path, leaf) if callable(self.layer_axes) else self.layer_axes
        stacked = _axes_of("layer_axes", path, leaf, stacked or ())
        own = [axis for axis in range(weights.ndim) if axis not in stacked]
        shape = tuple(weights.shape[axis] for axis in own)
        layer = jax.ShapeDtypeStruct(shape, jnp.result_type(leaf)) if stacked else leaf
        if not self.adapt(path, layer):
            return jnp.ones((1,) * weights.ndim, dtype)
        axes = self.filter_axes(path, layer)
        if axes is None:
            scale = jnp.abs(weights)
        else:
            axes = _axes_of("filter_axes", path, layer, axes)
            scale = _filter_norm(weights, tuple(own[axis] for axis in axes))
        return scale + jnp.asarray(self.eta).astype(dtype)


def _axes_of(rule: str, path: KeyPath, leaf: Any, axes: Any) -> tuple[int, ...]:
    """The axes that a rule gave for a leaf, counted from the front; refuses those it has not."""
    ndim = len(np.shape(leaf))
    given = axes if isinstance(axes, (tuple, list)) else (axes,)
    if any(not -ndim <= axis < ndim for axis in given):
        raise ValueError(
            f"{rule} gives {axes!r} at params{jax.tree_util.keystr(path)} of shape "
            f"{np.shape(leaf)}, which has no such axes; a rule (path, leaf) can tell leaves apart."
        )
    return tuple(sorted({axis % ndim for axis in given}))


def _filter_norm(weights: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    """2-norms over axes, kept as axes of size one; without overflow, and with a derivative at 0."""
    largest = jnp.max(jnp.abs(weights), axis=axes, keepdims=True, initial=0.0)
    unit = jax.lax.stop_gradient(jnp.where(largest == 0, jnp.ones_like(largest), largest))
    squares = jnp.sum(jnp.square(weights / unit), axis=axes, keepdims=True)
    length = jnp.sqrt(jnp.where(squares == 0, jnp.ones_like(squares), squares))
    return unit * jnp.where(squares == 0, jnp.zeros_like(length), length)


def identity() -> Operator:
    """The operator of SAM (Foret et al. 2020): T_w = I, of size one along every axis.

    >>> import asam_jax, jax.numpy as jnp
    >>> asam_jax.identity()({"kernel": jnp.array([[3.0, -4.0]])})
    {'kernel': Array([[1.]], dtype=float32)}
    """
    return _Normalization(0.0, _none, _none, ())


def elementwise(
    eta: Scalar = 0.0, *, adapt: LeafPredicate = all_leaves, layer_axes: LayerAxes = ()
) -> Operator:
    """The element-wise operator T_w = diag(|w_1|, ..., |w_k|) + eta I (Kwon et al. 2021).

    By default exactly invariant to how layers are scaled (Theorem 1); with eta or with unscaled
    biases only roughly. The authors' code is `elementwise(0.01, adapt=not_bias)`, and takes other
    radii.

    Args:
      eta: added to every scale; a scalar of at least 0, in the parameters' units. With 0 a weight
        of exactly zero is not perturbed.
      adapt: `adapt(path, leaf) -> bool`; where False, T = 1 exactly. `all_leaves` is Equation 5
        to the letter, `not_bias` the rule of the authors' code.
      layer_axes: see `filterwise`.

    Returns:
      An operator: a function from params to scales of their shapes, or of size one along every
      axis where `adapt` is False; float32, or the parameter's dtype where that is wider.

    >>> import asam_jax, jax.numpy as jnp
    >>> asam_jax.elementwise(eta=0.5)({"w": jnp.array([3.0, -4.0]), "b": jnp.array([7.0])})
    {'b': Array([7.5], dtype=float32), 'w': Array([3.5, 4.5], dtype=float32)}
    """
    _checks.number("eta", eta, 0.0)
    return _Normalization(eta, adapt, _none, layer_axes)


def filterwise(
    eta: Scalar = 0.0,
    *,
    adapt: LeafPredicate = all_leaves,
    filter_axes: FilterAxes = flax_filter_axes,
    layer_axes: LayerAxes = (),
) -> Operator:
    """The filter-wise operator (Kwon et al. 2021, Equation 5).

    T_w = diag(||f_1||_2 1, ..., ||f_m||_2 1, |w_1|, ..., |w_q|) + eta I, where f_i is all that
    makes one output channel of a convolution, and w_j is in no filter.

    Args:
      eta: see `elementwise`, as for adapt.
      filter_axes: `filter_axes(path, leaf)` -> the axes that one filter spans, or None for
        element-wise scales. `flax_filter_axes` serves Flax and Haiku, `torch_filter_axes` Equinox
        and PyTorch layouts.
      layer_axes: the axes along which layers are stacked in one leaf (`nn.scan`, `nnx.scan`,
        `eqx.filter_vmap`, Haiku's `layer_stack`): a tuple for every leaf, (0,) say, or a rule
        `layer_axes(path, leaf)` -> axes. The other rules are given one layer, as a
        `jax.ShapeDtypeStruct`, and each layer has filters of its own.

    Returns:
      An operator. A filter's scale has size one along its axes: (1, .., 1, out) for a Flax kernel.

    >>> import asam_jax, jax.numpy as jnp
    >>> kernel = jnp.ones((3, 3, 1, 2)) * jnp.array([[[[1.0, 2.0]]]])
    >>> asam_jax.filterwise()({"kernel": kernel})["kernel"]
    Array([[[[3., 6.]]]], dtype=float32)
    """
    _checks.number("eta", eta, 0.0)
    return _Normalization(eta, adapt, filter_axes, layer_axes)


@dataclasses.dataclass(frozen=True, eq=False)
class _Masked:
    operator: Operator
    mask: Any

    def __call__(self, params: PyTree) -> PyTree:
        _refuse_count(params)
        flags = self.flags(params)  # frozen entries are in no filter's norm, either
        return _tree.where(flags, self.operator(_tree.where(flags, params)))

    def flags(self, params: PyTree) -> PyTree:
        """A boolean or an array of booleans for each leaf of params, True where it trains."""
        # A module of booleans may be callable without being a function of the parameters.
        is_tree = any(map(_is_flag, jax.tree.leaves(self.mask)))
        mask = self.mask(params) if callable(self.mask) and not is_tree else self.mask
        if not all(map(_is_flag, jax.tree.leaves(mask))):
            raise TypeError(
                "mask must hold booleans, True where a leaf trains. Of labels make "
                "jax.tree.map(lambda label: label == 'train', mask)."
            )
        static = lambda f: bool(f) if isinstance(f, np.bool_) else f  # noqa: E731
        spread = lambda f, part: jax.tree.map(lambda _: static(f), part)  # noqa: E731
        try:
            flags = jax.tree.map(spread, mask, params)
        except ValueError as error:
            raise ValueError("mask must have the structure of params or of a prefix.") from error
        inner = trained(self.operator, params)
        return flags if inner is None else jax.tree.map(lambda a, b: a & b, flags, inner)


def _is_flag(leaf: Any) -> bool:
    return isinstance(leaf, (bool, np.bool_)) or getattr(leaf, "dtype", None) == np.bool_


def masked(operator: Operator, mask: PyTree | Callable[[PyTree], PyTree]) -> Operator:
    """The operator with frozen parameters: not perturbed, and ignored in every norm.

    Freeze in two places: the perturbation by this operator, the update by a base that zeroes it.
    Where most of a model is frozen, differentiate with respect to the trained leaves alone.

    Args:
      operator: the operator for the leaves that train.
      mask: as in `optax.masked`, True where a leaf trains: a tree of booleans (or boolean arrays,
        for single entries) like params or a prefix of it, or a function from params to such a tree;
        of an NNX model one like `nnx.as_pure(nnx.state(model, nnx.Param))`.

    >>> import asam_jax, optax
    >>> trains = {"backbone": False, "head": True}
    >>> operator = asam_jax.masked(asam_jax.elementwise(), trains)
    >>> base = optax.partition({True: optax.adamw(1e-3), False: optax.set_to_zero()}, trains)
    >>> tx = asam_jax.asam(base, rho=2.0, operator=operator)
    """
    return _Masked(operator, mask)


def trained(operator: Operator, params: PyTree) -> PyTree | None:
    """Which parameters an operator leaves trained, as `masked` was told; None for all."""
    return operator.flags(params) if isinstance(operator, _Masked) else None
