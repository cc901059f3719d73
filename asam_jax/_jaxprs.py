"""What makes two traced programs the same, whatever arrays they close over."""

import dataclasses
from collections.abc import Hashable
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal

# Their rules serve differentiation and batching alone, and are new objects in every trace.
_WITH_RULES = frozenset({"custom_jvp_call", "custom_vjp_call"})


class _Constant:
    """An array inside a program: the same one, or one of the same bits."""

    def __init__(self, array: jax.Array) -> None:
        self.array = array

    def __hash__(self) -> int:
        return hash((self.array.shape, str(self.array.dtype)))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Constant) or hash(self) != hash(other):
            return False
        a, b = self.array, other.array
        if a is b or jax.dtypes.issubdtype(a.dtype, jax.dtypes.extended):
            return a is b
        readable = a.is_fully_addressable and b.is_fully_addressable
        return readable and np.asarray(a).tobytes() == np.asarray(b).tobytes()


class _Same:
    """An object that has no hash: itself and no other."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __hash__(self) -> int:
        return id(self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.value is other.value


class _Keys:
    """The keys of a program and of those inside it, each of which is looked at once."""

    def __init__(self) -> None:
        self.numbers: dict[Hashable, int] = {}  # of the key of a program inside
        self.seen: dict[int, tuple[int, Any]] = {}  # by id, which its object keeps from reuse

    def program(self, jaxpr: Any, consts: Any = ()) -> Hashable:
        """Primitives in their order with their parameters; variables go by their first use."""
        names: dict[Any, int] = {}

        def atom(value: Any) -> Hashable:
            if isinstance(value, Literal):
                return (value.aval, self.value(value.val))
            return names.setdefault(value, len(names))

        def typed(variables: Any) -> Hashable:
            return tuple((atom(v), v.aval) for v in variables)

        inputs = typed((*jaxpr.constvars, *jaxpr.invars))
        equations = tuple(
            (e.primitive, tuple(map(atom, e.invars)), typed(e.outvars), self._params(e), e.ctx)
            for e in jaxpr.eqns
        )
        outputs = tuple(map(atom, jaxpr.outvars))
        return (inputs, equations, outputs, tuple(map(self.value, consts)))

    def _params(self, equation: JaxprEqn) -> Hashable:
        if equation.primitive.name in _WITH_RULES:
            return self.value(equation.params["call_jaxpr"])
        return self.value(equation.params)

    def _inside(self, jaxpr: Any) -> int:
        if id(jaxpr) not in self.seen:
            open_jaxpr = jaxpr.jaxpr if isinstance(jaxpr, ClosedJaxpr) else jaxpr
            key = self.program(open_jaxpr, getattr(jaxpr, "consts", ()))
            self.seen[id(jaxpr)] = (self.numbers.setdefault(key, len(self.numbers)), jaxpr)
        return self.seen[id(jaxpr)][0]

    def value(self, value: Any) -> Hashable:
        """A parameter of a primitive, or a number. Equal numbers of other types or signs differ."""
        kind = type(value)
        if isinstance(value, (ClosedJaxpr, Jaxpr)):
            return (kind, self._inside(value))
        if isinstance(value, (float, complex)):
            return (kind, np.asarray(value).tobytes())
        if isinstance(value, (np.ndarray, np.generic)):
            return (kind, value.shape, str(value.dtype), value.tobytes())
        if isinstance(value, jax.Array):
            return _Constant(value)
        if kind in (tuple, list) or hasattr(kind, "_fields"):
            return (kind, tuple(map(self.value, value)))
        if kind is dict:
            return (kind, tuple((name, self.value(v)) for name, v in value.items()))
        if dataclasses.is_dataclass(kind) and getattr(kind, "__dataclass_params__").frozen:  # noqa: B009
            fields = dataclasses.fields(kind)
            return (kind, tuple(self.value(getattr(value, f.name)) for f in fields))
        try:
            hash(value)
        except TypeError:
            return _Same(value)
        return (kind, value)


def key_of(jaxpr: ClosedJaxpr) -> Hashable:
    """Equal for programs that compute the same from their arguments and what they close over.

    The arrays that the whole program closes over are no part of it, only their types; those of
    programs inside it are (of functions under a jit of their own, say).
    """
    keys = _Keys()
    outermost = keys.program(jaxpr.jaxpr)
    return (outermost, tuple(keys.numbers))
