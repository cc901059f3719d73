"""The same leaves in other containers: dict or FrozenDict, arrays or boxes such as nnx.Param."""

from typing import Any

import jax
from jax.tree_util import FlattenedIndexKey, GetAttrKey

from asam_jax._checks import PyTree

Name = tuple[str, ...]


def name_of(key: Any) -> str:
    """The name of a key, be it of a dict, an attribute, a field or a place in a sequence."""
    for attribute in ("key", "name", "idx"):
        if hasattr(key, attribute):
            return str(getattr(key, attribute))
    return str(key)


def readings(tree: PyTree) -> list[dict[Name, Any]]:
    """The leaves by the names of their keys; then, where all sit in boxes, without the boxes'."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    named = {tuple(map(name_of, path)): leaf for path, leaf in leaves}
    last = {path[-1] if path else None for path, _ in leaves}
    if len(last) != 1 or not isinstance(last.pop(), (GetAttrKey, FlattenedIndexKey)):
        return [named]
    return [named, {name[:-1]: leaf for name, leaf in named.items()}]


def rebuilt(like: PyTree, tree: PyTree) -> PyTree:
    """`tree` in the containers of `like`; unchanged where it does not hold the same leaves.

    Of boxed leaves it may hold more: nnx.grad can return those of a whole model, of which
    nnx.Optimizer takes its own.
    """
    structure = jax.tree.structure(like)
    if structure != jax.tree.structure(tree):
        for wanted in readings(like):
            for boxed, found in enumerate(readings(tree)):
                if wanted.keys() == found.keys() or (boxed and wanted.keys() < found.keys()):
                    return structure.unflatten([found[name] for name in wanted])
    return tree
