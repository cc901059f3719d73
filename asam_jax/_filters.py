"""Rules on the leaves of a parameter tree: what a filter is, and which axes number layers."""

import re
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from asam_jax._names import KeyPath, lower, names, words
from asam_jax._rules import is_norm, layer_stack, not_bias

FilterAxes = Callable[[KeyPath, Any], tuple[int, ...] | None]
"""A rule from a leaf's key path and the leaf to the axes of one filter, or None without one."""

LayerAxes = tuple[int, ...] | Callable[[KeyPath, Any], tuple[int, ...] | None]
"""The axes that number stacked layers: for all leaves, or a rule from a leaf's key path and it."""

_KERNEL = {"kernel", "kernels", "weight", "weights", "filter", "filters"}
_TABLE = {"pos", "position", "positions", "positional", "embed", "embeds", "embedding"}
_TABLE |= {"embeddings", "token", "tokens", "table", "scale", "gamma"}
_DENSE = {"dense", "linear", "general", "einsum"}
_EXPERTS = {"expert", "experts", "moe"}
_ATTENTION = {"attention", "attn", "mha", "mhsa"}
_PROJECTION = {"query", "key", "value", "out", "q", "k", "v", "o", "qkv", "kv"}
_KERAS_DEPTHWISE = re.compile(r"depthwise_conv\dd(_\d+)?")
_HAIKU_TRANSPOSED = re.compile(r"conv(\d_|_n)d_transpose(_\d+)?")


def _says_conv(name: str) -> bool:
    return any(word.lower().startswith("conv") for word in words(name))


def _is_kernel(name: str) -> bool:
    """Whether a leaf is named as kernels are: kernel, weight, w (and numbers), filter, conv."""
    return bool(lower(name) & _KERNEL) or lower(name) == {"w"} or _says_conv(name)


def _is_convolution(path: KeyPath, leaf: Any) -> bool:
    """Whether a leaf is a convolution's kernel, by its number of axes and the names on its path."""
    axes, on_path = len(np.shape(leaf)), names(path)
    if axes < 3 or not on_path:
        return axes >= 3
    own, module = on_path[-1], "".join(on_path[-2:-1])
    if not not_bias(path, leaf):
        return False
    if not _is_kernel(own):
        return axes > 3 and ("patch" in lower(own) or not lower(own) & _TABLE)
    if _says_conv(own) or _says_conv(module):
        return True
    both = lower(own) | lower(module)
    around = set().union(*map(lower, on_path))
    if both & _DENSE or is_norm(module) or around & _EXPERTS:
        return False
    return axes > 3 or not (both & _PROJECTION or around & _ATTENTION)


def flax_filter_axes(path: KeyPath, leaf: Any) -> tuple[int, ...] | None:
    """Axes of one filter in the layout (*spatial, in, out) of Flax and Haiku.

    A filter is everything that makes one output channel of a convolution: all axes but the last
    of its kernel. Which leaves are such kernels, their names and numbers of axes say:

    - of four axes or more: every leaf, unless its name speaks of a bias, scale, position,
      embedding, token or table;
    - of three axes (the kernels of one-dimensional convolutions, of attention and of stacked
      dense layers look alike): a leaf that is named as kernels are, `kernel`, `w` or `weight`
      (with a number or further words) or by a word that begins with `conv`, unless its own name
      or its module's says query, key, value, out, q, k, v, o, qkv or kv, or a name on the path
      attention, attn, mha or mhsa; and one without any name on its path;
    - and of any number of axes, not a kernel of a module named dense, linear, general, einsum or
      norm, or below one named expert or moe.

    Where the own name or the module's begins a word with `conv`, that decides. Names are taken by
    their words: `pos_embedding`, `DenseGeneral_0`, `MultiHeadDotProductAttention_1`.

    Some layers have axes of their own, by the names that they get by themselves: in `w` of Haiku's
    transposed convolutions (`conv2_d_transpose`) the outputs are last but one, each place of
    Linen's `ConvLocal` has its own filters, and the last two axes of Keras' depthwise kernels
    number the outputs together. That `nnx.ConvTranspose(transpose_kernel=True)` has its outputs
    last but one, and what another name hides, no rule can see: give `filterwise` one of your own
    that hands the rest to this one. It warns where the bias next to a kernel has not one entry
    for each filter.

    Args:
      path: the leaf's key path, as `jax.tree_util.tree_map_with_path` hands it out.
      leaf: the parameter, or anything with its shape.

    Returns:
      The axes to reduce, or None for an element-wise scale.

    >>> import asam_jax, jax, jax.numpy as jnp
    >>> asam_jax.flax_filter_axes((), jnp.ones((3, 3, 16, 32)))
    (0, 1, 2)
    >>> params = {"kernel": jnp.ones((5, 16, 32)), "pos_embedding": jnp.ones((1, 196, 32))}
    >>> jax.tree_util.tree_map_with_path(asam_jax.flax_filter_axes, params)
    {'kernel': (0, 1), 'pos_embedding': None}

    References:
      Kwon et al., ASAM, 2021, Equation 5.
    """
    if not _is_convolution(path, leaf):
        return None
    axes, on_path = tuple(range(len(np.shape(leaf)))), names(path)
    own, module = "".join(on_path[-1:]), "".join(on_path[-2:-1])
    if own == "depthwise_kernel" or _KERAS_DEPTHWISE.fullmatch(module):
        return axes[:-2]
    if module.startswith("ConvLocal"):
        return axes[-2:-1]
    if own == "w" and _HAIKU_TRANSPOSED.fullmatch(module):
        return (*axes[:-2], axes[-1])
    return axes[:-1]


def torch_filter_axes(path: KeyPath, leaf: Any) -> tuple[int, ...] | None:
    """Axes of one filter in the layout (out, in, *spatial) of Equinox and PyTorch.

    Which leaves are kernels of convolutions, names and numbers of axes say as for
    `flax_filter_axes`. Equinox' transposed convolutions have this layout, too; PyTorch's are
    (in, out, *spatial), and want a rule of your own.

    Args:
      path: the leaf's key path, as `jax.tree_util.tree_map_with_path` hands it out.
      leaf: the parameter, or anything with its shape.

    Returns:
      The axes to reduce, or None for an element-wise scale.

    >>> import asam_jax, jax.numpy as jnp
    >>> asam_jax.torch_filter_axes((), jnp.ones((32, 16, 3, 3)))
    (1, 2, 3)

    References:
      Kwon et al., ASAM, 2021, Equation 5.
    """
    return tuple(range(1, len(np.shape(leaf)))) if _is_convolution(path, leaf) else None


def layers_of_haiku(path: KeyPath, leaf: Any) -> tuple[int, ...]:
    """The axes that number the layers of `hk.experimental.layer_stack`, by its modules' names."""
    return tuple(range(min(sum(map(layer_stack, names(path))), len(np.shape(leaf)))))


def axes_of(rule: str, path: KeyPath, leaf: Any, axes: Any) -> tuple[int, ...]:
    """The axes that a rule gave for a leaf, counted from the front; refuses those it has not."""
    ndim = len(np.shape(leaf))
    given = axes if isinstance(axes, (tuple, list)) else (axes,)
    whole = all(isinstance(a, (int, np.integer)) and not isinstance(a, bool) for a in given)
    if not whole or any(not -ndim <= a < ndim for a in given):
        raise ValueError(
            f"{rule} gives {axes!r} at params{jax.tree_util.keystr(path)} of shape "
            f"{np.shape(leaf)}, and there are no such axes; a rule {rule}(path, leaf) -> axes can "
            "tell one leaf from another."
        )
    return tuple(sorted({int(a) % ndim for a in given}))
