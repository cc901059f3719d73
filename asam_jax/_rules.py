"""Rules on the leaves of a parameter tree: which are scaled."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np

from asam_jax._names import KeyPath, lower, names, words

LeafPredicate = Callable[[KeyPath, Any], bool]
"""A rule from a leaf's key path and the leaf to whether T_w scales it: `not_bias`, `all_leaves`."""

_BIAS = re.compile(r"[a-z]?bias(es)?")
_SHIFT = re.compile(r"beta|(offset|shift|intercept)s?")
_NORM = re.compile(r"[bgilr]n|[a-z]*norm")
_LETTERS = re.compile(r"b[a-mo-z]?|b[hikqvxy]{2,3}")  # bq, bs, bih; bn names a BatchNorm
_LORA = re.compile(r"(?i:(?<![a-z])q?lora)|LoRA")
_WEIGHT = {"w", "weight", "weights", "kernel", "scale", "gamma"}


def is_norm(name: str) -> bool:
    """Whether a module's name is that of a normalization layer."""
    return any(_NORM.fullmatch(word) for word in lower(name))


def not_bias(path: KeyPath, leaf: Any) -> bool:
    """Whether a leaf is scaled under the rule of the paper's authors: all but biases.

    The authors' code scales the tensors whose name holds "weight", BatchNorm's scale among them,
    and leaves T = 1 for biases. Here a leaf is a bias by its innermost name, numbers left out:

    - a word of it is `bias` or `biases`, with a letter before or without (`bias_hh_l0`,
      `in_proj_bias`, `qbias`, `relative_position_bias_table`), whatever the shape; as in the
      authors' code, where none of these names holds "weight";
    - it is `offset`, `beta`, `shift` or `intercept`, alone or behind the name of a normalization
      layer (`ln_beta`), whatever the shape;
    - it is `b` with a number or letters (`b1`, `bq`, `bih`; not `bn`), or `b` is its first word
      (`b_in`), and it has two axes at most; or `b` is its last word (`fc1_b`), and it has one at
      most. Not where another word says weight (`scale_b`) or LoRA (`lora_b`);
    - it is `b`, and no matrix: LoRA's B has that name. Two axes make a matrix, but for those of
      Haiku's modules (a convolution's (channels, 1), `hk.Bias`, `hk.experimental.layer_stack`);
      below a name with the word LoRA, so do more.

    `beta` may mean something else, and a stack of vectors named `b` looks like a matrix: give
    `elementwise` and `filterwise` a rule of your own, or `layer_axes`.

    Args:
      path: the leaf's key path, as `jax.tree_util.tree_map_with_path` hands it out.
      leaf: the parameter, or anything with its shape.

    Returns:
      False for biases, True for everything else, unnamed leaves included.

    >>> import asam_jax, jax
    >>> params = {"conv": {"kernel": 1.0, "bias": 1.0}, "norm": {"scale": 1.0, "bias": 1.0}}
    >>> jax.tree_util.tree_map_with_path(asam_jax.not_bias, params)
    {'conv': {'bias': False, 'kernel': True}, 'norm': {'bias': False, 'scale': True}}

    References:
      Kwon et al., ASAM, 2021, the published implementation.
    """
    on_path = names(path)
    return not (on_path and _is_bias(on_path, np.shape(leaf)))


def _is_bias(on_path: list[str], shape: tuple[int, ...]) -> bool:
    own = words(on_path[-1])
    small = [word.lower() for word in own]
    if any(_BIAS.fullmatch(word) for word in small):
        return True
    if small and _SHIFT.fullmatch(small[-1]):
        return len(small) == 1 or any(_NORM.fullmatch(word) for word in small[:-1])
    if on_path[-1] == "b":
        lora = any(_LORA.search(name) for name in on_path)
        matrix = len(shape) > 1 if lora else len(shape) == 2 and not _of_haiku(on_path, shape)
        return not matrix
    if _LORA.search(on_path[-1]) or _WEIGHT.intersection(small):
        return False
    if not own:
        return False
    if own[0] == "b" or (len(own) == 1 and _LETTERS.fullmatch(own[0])):
        return len(shape) <= 2
    return own[-1] == "b" and len(shape) <= 1


def _of_haiku(on_path: list[str], shape: tuple[int, ...]) -> bool:
    """Whether a `b` with two axes is a bias by the names of the modules around it."""
    around = lower(on_path[-2]) if len(on_path) > 1 else set()
    return (
        any(layer_stack(name) for name in on_path)
        or any(_BIAS.fullmatch(word) for word in around)
        or ("conv" in around and shape[1] == 1)
    )


def layer_stack(name: str) -> bool:
    """Whether a module's name is the one that Haiku gives to a stack of layers."""
    return name.startswith("__layer_stack")


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
