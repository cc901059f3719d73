"""One of two functions: chosen while tracing where that is known, else while running."""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np
from jax.core import Tracer

Result = TypeVar("Result")


def choose(
    name: str, condition: Any, yes: Callable[[], Result], no: Callable[[], Result]
) -> Result:
    """yes() or no(). A condition that has a value spares `jax.lax.cond` and the other function."""
    if isinstance(condition, Tracer):
        return jax.lax.cond(condition, yes, no)
    number = isinstance(condition, (int, float, np.generic, np.ndarray, jax.Array))
    if not number or np.ndim(condition) != 0:
        raise TypeError(f"{name} must be True, False or a boolean scalar, got {condition!r}.")
    return yes() if condition else no()
