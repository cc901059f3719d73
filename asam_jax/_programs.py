"""Functions of arrays, compiled, of which none is ever older than what it closes over."""

import functools
from collections.abc import Callable, Hashable
from typing import Any

import jax
from jax.core import Tracer, eval_jaxpr

from asam_jax._checks import PyTree
from asam_jax._jaxprs import key_of

# Programs kept for later calls: a measure needs three, and more for each new shape.
_KEPT = 64

# What stands in the way of a trace: NumPy on a parameter, float(loss), an array as a condition.
_UNTRACEABLE = (
    jax.errors.ConcretizationTypeError,
    jax.errors.NonConcreteBooleanIndexError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
)


def traced(*trees: PyTree) -> bool:
    """Whether a transformation of JAX is at work on these arrays."""
    return any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(trees))


class _Form:
    """A jaxpr as a key: equal to those that compute the same from other arrays."""

    def __init__(self, jaxpr: Any) -> None:
        self.jaxpr = jaxpr.jaxpr
        self.key: Hashable = key_of(jaxpr)
        self.hash = hash(self.key)

    def __hash__(self) -> int:
        return self.hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Form) and self.key == other.key


@functools.lru_cache(maxsize=_KEPT)
def _compiled(form: _Form) -> Callable[..., list[jax.Array]]:
    return jax.jit(lambda consts, leaves: eval_jaxpr(form.jaxpr, consts, *leaves))


class Program:
    """A function, traced once by each Program, and compiled where no equal trace was before.

    jax.jit finds a function by its identity, so that it would go on using the globals, attributes
    and closures of its first call. A trace reads them anew, and takes a thousandth of what a
    compilation takes: the arrays among them become arguments of the compiled program, all else
    decides whether there is one already. A later call of the same Program must be with arrays of
    the same shapes and dtypes.

    Where a transformation of JAX is at work already, and where the function cannot be traced, it
    is called as it is.
    """

    def __init__(self, function: Callable[..., PyTree]) -> None:
        self._function = function
        self._run: Callable[..., PyTree] | None = None

    def __call__(self, *args: PyTree) -> PyTree:
        """The function's result."""
        if traced(args) or jax.config.jax_disable_jit:  # pyright: ignore[reportAttributeAccessIssue]
            return self._function(*args)
        if self._run is None:
            self._run = self._prepared(args)
        return self._run(*args)

    def _prepared(self, args: tuple[PyTree, ...]) -> Callable[..., PyTree]:
        def anew(*args: PyTree) -> PyTree:  # JAX keeps traces by the function: this one is new
            return self._function(*args)

        try:
            jaxpr, shapes = jax.make_jaxpr(anew, return_shape=True)(*args)
        except _UNTRACEABLE:
            return self._function
        if traced(jaxpr.consts):
            return self._function
        run, consts, treedef = _compiled(_Form(jaxpr)), jaxpr.consts, jax.tree.structure(shapes)
        return lambda *args: jax.tree.unflatten(treedef, run(consts, jax.tree.leaves(args)))
