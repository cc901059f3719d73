"""The names on the path of a leaf, and the words that a name is made of."""

import re
from typing import Any

import jax

KeyPath = tuple[Any, ...]

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
# nnx.Param, Linen's boxes for metadata, Penzai's parameters; and Penzai's named arrays
_WRAPPERS = tuple(map(jax.tree_util.GetAttrKey, ("value", "data_array")))
_COMPLEX = ("real", "imag", "imaginary")  # a complex parameter kept as two leaves


def address(path: KeyPath) -> tuple[str, ...]:
    """A path as strings, the names of Haiku and of flattened trees taken apart at "/" and ".".

    What a wrapper puts behind the name of a parameter is left out, so that a parameter has one
    address whether it is wrapped (`nnx.state`) or not (`nnx.to_pure_dict`).
    """
    keys = list(path)
    while len(keys) > 1 and (keys[-1] in _WRAPPERS or _name(keys[-1]) in _COMPLEX):
        keys.pop()
    pieces: list[str] = []
    for name in map(_name, keys):
        for part in name if isinstance(name, tuple) else (name,):  # flatten_dict: paths as keys
            pieces += filter(None, re.split(r"[/.]", str(part)))
    return tuple(pieces)


def _name(key: Any) -> Any:
    return getattr(key, "name", getattr(key, "key", getattr(key, "idx", key)))


def names(path: KeyPath) -> list[str]:
    """The names on a path, the leaf's own last; indices are no names."""
    return [piece for piece in address(path) if not piece.isdigit()]


def words(name: str) -> list[str]:
    """The words of a name, as they are written: `bias_hh_l0` and `DenseGeneral_1` have two each."""
    return _WORD.findall(name)


def lower(name: str) -> set[str]:
    """The words of a name, in lower case."""
    return {word.lower() for word in words(name)}
