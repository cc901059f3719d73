"""Rules on the leaves of a parameter tree: which are scaled, and what a filter is."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

KeyPath = tuple[Any, ...]

LeafPredicate = Callable[[KeyPath, Any], bool]
"""A rule from a leaf's key path and the leaf to whether T_w scales it: `not_bias`, `all_leaves`."""

FilterAxes = Callable[[KeyPath, Any], tuple[int, ...] | None]
"""A rule from a leaf's key path and the leaf to the axes of one filter, or None without one."""

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
