"""What sharpness is a measure of: by how much the mean of a loss rises from w to w + eps."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from asam_jax import _checks
from asam_jax._checks import PyTree
from asam_jax._dtypes import wide
from asam_jax._means import mean_and_each, mean_over
from asam_jax._operators import Operator
from asam_jax._programs import Program

LossFn = Callable[[PyTree, PyTree], jax.Array]
Index = jax.typing.ArrayLike


def _scalar(loss: Any) -> jax.Array:
    """What loss_fn returned, as an array, or an error unless it is one floating-point number."""
    ask = "loss_fn must return a scalar, the mean loss over the batch, got"
    if not (isinstance(loss, (int, float, complex)) or hasattr(loss, "shape")):
        kind = "None" if loss is None else f"a {type(loss).__name__}"
        raise TypeError(
            f"{ask} {kind}; return the loss alone. A loss_fn that returns (loss, aux) is wrapped: "
            "lambda params, batch: loss_fn(params, batch)[0]."
        )
    shape, dtype = jnp.shape(loss), jnp.result_type(loss)
    if shape:
        raise TypeError(
            f"{ask} shape {shape} of {dtype}; take the mean over the examples: jnp.mean(losses)."
        )
    if not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(
            f"{ask} {dtype}, which is not real floating point; return a mean, such as "
            "jnp.mean(wrong.astype(jnp.float32)) for errors that are counted."
        )
    return jnp.asarray(loss)


class Losses:
    """A loss at w + eps on a batch, without and with its gradient, both compiled."""

    def __init__(self, loss_fn: LossFn) -> None:
        _checks.function("loss_fn", loss_fn)

        def loss_at(at: PyTree, batch: PyTree) -> jax.Array:
            loss = _scalar(loss_fn(at, batch))
            return loss.astype(wide(loss))

        def value(params: PyTree, eps: PyTree, batch: PyTree) -> jax.Array:
            return loss_at(jax.tree.map(jnp.add, params, eps), batch)

        def value_and_grad(params: PyTree, eps: PyTree, batch: PyTree) -> tuple[jax.Array, PyTree]:
            at = jax.tree.map(jnp.add, params, eps)
            loss, grads = jax.value_and_grad(loss_at)(at, batch)
            return loss, jax.tree.map(lambda g: g.astype(wide(g)), grads)

        self.value = Program(value)
        self.value_and_grad = Program(value_and_grad)


class Objective(NamedTuple):
    """The rise of a loss, the mean over `pieces` pieces of a batch, as a function of eps.

    Losses are subtracted piece by piece and averaged then, since a rise can be smaller than the
    rounding of a sum of losses. `at_w` is the loss of each piece at w, a
    list of scalars, or an array where the loop is one of the program.
    """

    losses: Losses
    params: PyTree
    pieces: int
    batch: Callable[[Index], PyTree]
    roll: bool
    at_w: Any = ()

    def begun(self) -> "Objective":
        """The same with the losses at w."""
        eps = no_eps(self.params)

        def of(i: Index) -> tuple[None, jax.Array]:
            return None, self.losses.value(self.params, eps, self.batch(i))

        return self._replace(at_w=mean_and_each(self.pieces, of, roll=self.roll)[1])

    def begun_with_grad(self) -> tuple["Objective", jax.Array, PyTree]:
        """The same with the losses at w, the rise there (0, or NaN for no number), the gradient."""
        eps = no_eps(self.params)

        def of(i: Index) -> tuple[tuple[jax.Array, PyTree], jax.Array]:
            loss, grads = self.losses.value_and_grad(self.params, eps, self.batch(i))
            return (loss - loss, grads), loss

        (rise, grads), at_w = mean_and_each(self.pieces, of, roll=self.roll)
        return self._replace(at_w=at_w), rise, grads

    def rise(self, eps: PyTree) -> jax.Array:
        """L(w + eps) - L(w)."""

        def of(i: Index) -> jax.Array:
            return self.losses.value(self.params, eps, self.batch(i)) - self.at_w[i]

        return mean_over(self.pieces, of, roll=self.roll)

    def rise_and_grad(self, eps: PyTree) -> tuple[jax.Array, PyTree]:
        """L(w + eps) - L(w), and the gradient at w + eps."""

        def of(i: Index) -> tuple[jax.Array, PyTree]:
            loss, grads = self.losses.value_and_grad(self.params, eps, self.batch(i))
            return loss - self.at_w[i], grads

        return mean_over(self.pieces, of, roll=self.roll)


@jax.jit
def no_eps(params: PyTree) -> PyTree:
    """Eps at w."""
    return jax.tree.map(jnp.zeros_like, params)


def scales_of(operator: Operator, params: PyTree) -> PyTree:
    """T_w, taken once for a measure."""
    _checks.function("operator", operator)
    _checks.floating("params", params)
    scales = Program(operator)(params)
    _checks.scales(params, scales)
    return scales
