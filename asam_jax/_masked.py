"""Train some leaves only: frozen leaves are left out of the perturbation."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from asam_jax import _checks
from asam_jax._checks import PyTree
from asam_jax._names import KeyPath, address
from asam_jax._operators import Operator


@dataclasses.dataclass(frozen=True, eq=False)
class _Masked:
    operator: Operator
    mask: Any

    def __post_init__(self) -> None:
        _checks.function("operator", self.operator)

    def __call__(self, params: PyTree) -> PyTree:
        _checks.not_a_count(params)
        mask = self.mask(params) if _is_function(self.mask) else self.mask

        return jax.tree.map(_frozen_unless, _spread(mask, params), self.operator(params))


def _is_function(mask: Any) -> bool:
    """Whether a mask is a function of the parameters, and not a module of booleans."""
    return callable(mask) and not any(map(_is_boolean, jax.tree.leaves(mask)))


def _is_boolean(leaf: Any) -> bool:
    return isinstance(leaf, (bool, np.bool_)) or getattr(leaf, "dtype", None) == np.bool_


def _spread(mask: PyTree, params: PyTree) -> PyTree:
    """The mask with a leaf for each of the parameters, to which its prefix applies."""
    for path, moves in jax.tree_util.tree_leaves_with_path(mask):
        if not isinstance(moves, (bool, int, float, np.generic, np.ndarray, jax.Array)):
            raise TypeError(
                f"mask{jax.tree_util.keystr(path)} must be a boolean, True where the leaf trains, "
                f"got {moves!r}. Of labels make jax.tree.map(lambda label: label == 'train', mask)."
            )
    try:
        return jax.tree.map(lambda moves, part: jax.tree.map(lambda _: moves, part), mask, params)
    except ValueError:
        return _by_address(mask, params)


def _by_address(mask: PyTree, params: PyTree) -> PyTree:
    """The same by the names on the paths, where other containers or wrappers hold the leaves."""
    known = {address(path): moves for path, moves in jax.tree_util.tree_leaves_with_path(mask)}
    used = set()

    def moves_at(path: KeyPath, leaf: Any) -> Any:
        del leaf
        here = address(path)
        for length in range(len(here), -1, -1):
            if here[:length] in known:
                used.add(here[:length])
                return known[here[:length]]
        raise ValueError(
            f"mask says nothing about params{jax.tree_util.keystr(path)}: it must have the tree "
            "structure of params, or of a prefix of it, with True where a leaf trains."
        )

    spread = jax.tree_util.tree_map_with_path(moves_at, params)
    for path, _ in jax.tree_util.tree_leaves_with_path(mask):
        if address(path) not in used:
            raise ValueError(
                f"mask{jax.tree_util.keystr(path)} belongs to no leaf of params; mask must have "
                "the tree structure of params, or of a prefix of it."
            )
    return spread


def _frozen_unless(moves: Any, scale: Any) -> Any:
    """The scale, or zeros: NumPy's where that is known while tracing, as `is_frozen` tells."""
    if isinstance(moves, Tracer) or np.ndim(moves):
        return jnp.where(moves, scale, jnp.zeros_like(scale))
    return scale if moves else np.zeros((1,) * np.ndim(scale), jnp.result_type(scale))


def is_frozen(scale: Any) -> bool:
    """Whether a leaf with this scale is known not to move, while tracing, too."""
    return isinstance(scale, np.ndarray) and not scale.any()


def masked(operator: Operator, mask: PyTree | Callable[[PyTree], PyTree]) -> Operator:
    """The operator with T = 0 on frozen leaves: they are not perturbed and not in the norm.

    Inside `optax.masked` or `optax.partition` a link sees placeholders instead of the frozen
    leaves, and `grad_fn` cannot be called on those. So freeze in two places: the ascent by this
    operator, the update by a base that zeroes it. Where most of a model is frozen, it is cheaper
    still to differentiate with respect to the trained leaves alone (close over the others): then
    no gradient of a frozen leaf is ever computed, and nothing else is needed.

    Args:
      operator: the operator for the leaves that train.
      mask: a tree of booleans, True where a leaf trains: of the structure of the parameters, or
        a prefix of it, or a function from parameters to such a tree. A tree of booleans that can
        be called (an Equinox module) is a tree. Where the containers differ (a mask made from
        `nnx.state`, parameters as pure dicts), names on the paths tell what belongs together.

    Returns:
      An operator.

    Raises:
      TypeError: if operator is not callable; when called, if a leaf of mask is no boolean.
      ValueError: when called, if mask leaves out a leaf of the parameters, or names none.

    >>> import asam_jax, jax, jax.numpy as jnp, optax
    >>> params = {"backbone": jnp.array([1.0, 2.0]), "head": jnp.array([3.0])}
    >>> grad_fn = jax.grad(lambda w: jnp.sum(w["backbone"] ** 2) * jnp.sum(w["head"] ** 2))
    >>> trains = {"backbone": False, "head": True}
    >>> tx = optax.chain(
    ...     asam_jax.sharpness_aware(0.5, operator=asam_jax.masked(asam_jax.elementwise(), trains)),
    ...     optax.partition(
    ...         {True: optax.sgd(0.1), False: optax.set_to_zero()}, trains
    ...     ),
    ... )
    >>> updates, _ = tx.update(grad_fn(params), tx.init(params), params, grad_fn=grad_fn)
    >>> updates["backbone"]
    Array([0., 0.], dtype=float32)

    References:
      `optax.masked` and `optax.partition`, whose masks have the same form.
    """
    return _Masked(operator, mask)
