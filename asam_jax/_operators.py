"""Normalization operators: functions from parameters to the diagonal of T_w."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from asam_jax import _checks
from asam_jax._checks import PyTree

KeyPath = tuple[Any, ...]
Operator = Callable[[PyTree], PyTree]
LeafPredicate = Callable[[KeyPath, Any], bool]
FilterAxes = Callable[[KeyPath, Any], tuple[int, ...] | None]

_BIAS_NAMES = frozenset({"b", "offset"})


def _leaf_name(path: KeyPath) -> str:
    """The innermost name on a path, without the indices and nnx's trailing `.value`."""
    keys = list(path)
    if len(keys) > 1 and keys[-1] == jax.tree_util.GetAttrKey("value"):
        keys.pop()
    for key in reversed(keys):
        name = getattr(key, "name", getattr(key, "key", None))
        if isinstance(name, tuple) and name:  # flax.traverse_util.flatten_dict keeps paths as keys
            name = name[-1]
        if isinstance(name, str):
            return name.replace("/", ".").rsplit(".", 1)[-1]
    return ""


def not_bias(path: KeyPath, leaf: Any) -> bool:
    """Whether a leaf is scaled under the rule of the paper's authors: all but biases.

    The authors' code scales the tensors whose name holds "weight", BatchNorm's scale among them,
    and leaves T = 1 for biases. Here a leaf is a bias when its innermost name is `b` or `offset`
    (Haiku) or has `bias` among its parts between underscores (`bias` in Flax, Equinox and
    PyTorch, `bias_hh`, `in_proj_bias`).

    Args:
      path: the leaf's key path, as `jax.tree_util.tree_map_with_path` hands it out.
      leaf: the parameter; not looked at.

    Returns:
      False for biases, True for everything else, unnamed leaves included.

    >>> import asam_jax, jax
    >>> params = {"conv": {"kernel": 1.0, "bias": 1.0}, "norm": {"scale": 1.0, "bias": 1.0}}
    >>> jax.tree_util.tree_map_with_path(asam_jax.not_bias, params)
    {'conv': {'bias': False, 'kernel': True}, 'norm': {'bias': False, 'scale': True}}

    References:
      Kwon et al., ASAM, 2021, the published implementation.
    """
    del leaf
    name = _leaf_name(path)
    return not (name in _BIAS_NAMES or "bias" in name.split("_"))


def all_leaves(path: KeyPath, leaf: Any) -> bool:
    """Whether a leaf is scaled under Equation 5 to the letter: always.

    The authors advise rho = 2.0 with this rule, where 0.5 serves with `not_bias`.

    Args:
      path: the leaf's key path; not looked at.
      leaf: the parameter; not looked at.

    Returns:
      True.

    >>> import asam_jax
    >>> asam_jax.elementwise(eta=0.0, adapt=asam_jax.all_leaves)({"bias": -2.0})
    {'bias': Array(2., dtype=float32)}

    References:
      Kwon et al., ASAM, 2021, Equation 5.
    """
    del path, leaf
    return True


def flax_filter_axes(path: KeyPath, leaf: Any) -> tuple[int, ...] | None:
    """Axes of one filter in the layout (*spatial, in, out) of Flax and Haiku.

    A filter is everything that makes one output channel of a convolution: all axes but the last
    of leaves with three axes or more. Kernels with several head axes (attention's DenseGeneral)
    look the same to this rule; give `filterwise` a rule of your own to treat them otherwise.

    Args:
      path: the leaf's key path; not looked at.
      leaf: the parameter, or anything with its shape.

    Returns:
      The axes to reduce, or None for an element-wise scale.

    >>> import asam_jax, jax.numpy as jnp
    >>> asam_jax.flax_filter_axes((), jnp.ones((3, 3, 16, 32)))
    (0, 1, 2)
    >>> asam_jax.flax_filter_axes((), jnp.ones((16, 32))) is None
    True

    References:
      Kwon et al., ASAM, 2021, Equation 5.
    """
    del path
    ndim = jnp.ndim(leaf)
    return tuple(range(ndim - 1)) if ndim >= 3 else None


def torch_filter_axes(path: KeyPath, leaf: Any) -> tuple[int, ...] | None:
    """Axes of one filter in the layout (out, in, *spatial) of Equinox and PyTorch.

    Args:
      path: the leaf's key path; not looked at.
      leaf: the parameter, or anything with its shape.

    Returns:
      The axes to reduce, or None for an element-wise scale.

    >>> import asam_jax, jax.numpy as jnp
    >>> asam_jax.torch_filter_axes((), jnp.ones((32, 16, 3, 3)))
    (1, 2, 3)

    References:
      Kwon et al., ASAM, 2021, Equation 5.
    """
    del path
    ndim = jnp.ndim(leaf)
    return tuple(range(1, ndim)) if ndim >= 3 else None


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
        dtype = jnp.promote_types(jnp.result_type(leaf), jnp.float32)
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
