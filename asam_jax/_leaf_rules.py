"""Rules on the leaves of a parameter tree, by the shape of a leaf and the names on its path.

The innermost name is the last on the path. Keys of wrappers around an array are skipped: the
attributes `value` (`nnx.Param`), `array` and `data_array` (named arrays), and the index of a node
without names (Haliax). Names that hold a path, as Haiku's, are split at "/" and ".".
"""

import re
from typing import Any

import jax
import numpy as np

from asam_jax.typing import KeyPath

_UNNAMED = jax.tree_util.FlattenedIndexKey
_BOXES = {jax.tree_util.GetAttrKey(name) for name in ("value", "array", "data_array")}


def _keys(path: KeyPath) -> list[Any]:
    """The names and indices on a path, the leaf's own last."""
    keys = list(path)
    while len(keys) > 1 and (keys[-1] in _BOXES or isinstance(keys[-1], _UNNAMED)):
        keys.pop()
    return [getattr(k, "name", getattr(k, "key", getattr(k, "idx", k))) for k in keys]


def _names(path: KeyPath) -> list[str]:
    """The names on a path, without indices."""
    parts: list[str] = []
    for key in _keys(path):
        for part in key if isinstance(key, tuple) else (key,):
            parts += re.split(r"[/.]", str(part))
    return [part for part in parts if part and not part.isdigit()]


def not_bias(path: KeyPath, leaf: Any) -> bool:
    """Whether a leaf is no bias, and so scaled under the rule of the paper's authors.

    Their code scales the tensors whose name holds "weight", BatchNorm's scale among them, and
    leaves T = 1 for biases. Here a leaf is a bias if

    - its innermost name contains the word `bias`, or is `beta`, `offset` or `shift`;
    - its innermost name is `b`, `b` with up to three letters or digits (`b1`, `bq`), or begins
      with `b_`, and it has at most one axis longer than 1;
    - it has an index and no name (lists, tuples, Keras' variables), and no axis but the last is
      longer than 1.

    A rule of your own, `(path, leaf) -> bool`, serves other names. `path` is the leaf's key path,
    as `jax.tree_util.tree_map_with_path` hands it out, `leaf` anything with its shape.

    >>> import asam_jax, jax
    >>> params = {"conv": {"kernel": 1.0, "bias": 1.0}, "norm": {"scale": 1.0, "bias": 1.0}}
    >>> jax.tree_util.tree_map_with_path(asam_jax.not_bias, params)
    {'conv': {'bias': False, 'kernel': True}, 'norm': {'bias': False, 'scale': True}}
    """
    if path and str(_keys(path)[-1]).isdigit():
        return any(size > 1 for size in np.shape(leaf)[:-1])
    vector = sum(size > 1 for size in np.shape(leaf)) <= 1
    own = "".join(_names(path)[-1:]).lower()
    if "bias" in own or own in ("beta", "offset", "shift"):
        return False
    return not (vector and re.fullmatch(r"b([a-z0-9]{0,3}|_\w*)", own))


def all_leaves(path: KeyPath, leaf: Any) -> bool:
    """True for every leaf: Equation 5 of Kwon et al. (2021) to the letter.

    The default. The authors advise rho = 2.0 with it, where 0.5 serves with `not_bias`.

    >>> import asam_jax
    >>> asam_jax.elementwise(adapt=asam_jax.all_leaves)({"bias": -2.0})
    {'bias': Array(2., dtype=float32)}
    """
    del path, leaf
    return True


def _kernel_names(path: KeyPath, leaf: Any) -> tuple[str, str] | None:
    """The own name and the module's of a convolution's kernel; None for other leaves."""
    names = _names(path)
    module, own = ["", "", *names][-2:]
    words = re.findall("[a-z]+", own.lower())
    if any(word.startswith(("bias", "scale", "emb", "pos")) for word in words):
        return None
    axes = len(np.shape(leaf))
    named = "conv" in own.lower() or "conv" in module.lower()
    return (own, module) if axes > 3 or (axes == 3 and named) else None


def flax_filter_axes(path: KeyPath, leaf: Any) -> tuple[int, ...] | None:
    """Axes of one filter in the layout (*spatial, in, out) of Flax and Haiku.

    A filter is all that makes one output channel of a convolution: all axes but the last of its
    kernel. A leaf of four axes or more is such a kernel, unless a word of its innermost name begins
    with `bias`, `scale`, `emb` or `pos`; of three axes, only if its own name or its module's
    contains `conv`. In the `w` of Haiku's transposed convolutions (`conv2_d_transpose`) the outputs
    are last but one. For other layouts give `filterwise` a rule of your own, from the leaf's key
    path and the leaf to the axes, or to None for an element-wise scale.

    >>> import asam_jax, jax.numpy as jnp
    >>> asam_jax.flax_filter_axes((), jnp.ones((3, 3, 16, 32)))
    (0, 1, 2)
    """
    found = _kernel_names(path, leaf)
    if found is None:
        return None
    axes, (own, module) = tuple(range(len(np.shape(leaf)))), found
    if own == "w" and re.fullmatch(r"conv\w*_transpose(_\d+)?", module):
        return (*axes[:-2], axes[-1])
    return axes[:-1]


def torch_filter_axes(path: KeyPath, leaf: Any) -> tuple[int, ...] | None:
    """Axes of one filter in the layout (out, in, *spatial) of Equinox and PyTorch.

    Which leaves are kernels of convolutions is decided as by `flax_filter_axes`. Equinox'
    transposed convolutions have this layout, too; PyTorch's are (in, out, *spatial), and need a
    rule of your own.

    >>> import asam_jax, jax.numpy as jnp
    >>> asam_jax.torch_filter_axes((), jnp.ones((32, 16, 3, 3)))
    (1, 2, 3)
    """
    return None if _kernel_names(path, leaf) is None else tuple(range(1, len(np.shape(leaf))))
