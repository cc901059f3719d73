"""Train some leaves only: frozen leaves are left out of the perturbation."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from asam_jax import _checks
from asam_jax._checks import PyTree
from asam_jax._operators import Operator


@dataclasses.dataclass(frozen=True, eq=False)
class _Masked:
    operator: Operator
    mask: Any

    def __post_init__(self) -> None:
        _checks.function("operator", self.operator)

    def __call__(self, params: PyTree) -> PyTree:
        _checks.not_a_count(params)
        mask = self.mask(params) if callable(self.mask) else self.mask

        def freeze(moves: Any, scales: PyTree) -> PyTree:
            return jax.tree.map(lambda s: jnp.where(moves, s, jnp.zeros_like(s)), scales)

        return jax.tree.map(freeze, mask, self.operator(params))


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
        a prefix of it, or a function from parameters to such a tree.

    Returns:
      An operator.

    Raises:
      TypeError: if operator is not callable.

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
