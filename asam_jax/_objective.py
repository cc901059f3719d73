"""What sharpness is a measure of: the mean of a loss over the pieces of a batch, at w + eps."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from asam_jax import _checks
from asam_jax._batches import mean_over
from asam_jax._checks import PyTree
from asam_jax._dtypes import wide
from asam_jax._operators import Operator

LossFn = Callable[[PyTree, PyTree], jax.Array]


class Objective(NamedTuple):
    """The mean of loss_fn over `pieces` pieces of a batch, as a function of eps."""

    loss_fn: LossFn
    params: PyTree
    pieces: int
    batch: Callable[[jax.typing.ArrayLike], PyTree]
    roll: bool

    def value_and_grad(self, eps: PyTree) -> tuple[jax.Array, PyTree]:
        """Loss and gradient at w + eps."""
        return mean_over(
            self.pieces,
            lambda i: _value_and_grad(self.loss_fn, self.params, eps, self.batch(i)),
            roll=self.roll,
        )

    def value(self, eps: PyTree) -> jax.Array:
        """Loss at w + eps."""
        return mean_over(
            self.pieces,
            lambda i: _value(self.loss_fn, self.params, eps, self.batch(i)),
            roll=self.roll,
        )


@functools.partial(jax.jit, static_argnames="loss_fn")
def _value(loss_fn: LossFn, params: PyTree, eps: PyTree, batch: PyTree) -> jax.Array:
    loss = loss_fn(jax.tree.map(jnp.add, params, eps), batch)
    return loss.astype(wide(loss))


@functools.partial(jax.jit, static_argnames="loss_fn")
def _value_and_grad(
    loss_fn: LossFn, params: PyTree, eps: PyTree, batch: PyTree
) -> tuple[jax.Array, PyTree]:
    loss, grads = jax.value_and_grad(loss_fn)(jax.tree.map(jnp.add, params, eps), batch)
    return loss.astype(wide(loss)), jax.tree.map(lambda g: g.astype(wide(g)), grads)


@functools.partial(jax.jit, static_argnums=0)
def _compiled(operator: Operator, params: PyTree) -> PyTree:
    return operator(params)


def scales_of(operator: Operator, params: PyTree) -> PyTree:
    """T_w, taken once; compiled, unless the operator (eta an array, say) is no key for a cache."""
    _checks.function("operator", operator)
    _checks.floating("params", params)
    try:
        hash(operator)
    except TypeError:
        scales = operator(params)
    else:
        scales = _compiled(operator, params)
    _checks.scales(params, scales)
    return scales
