"""What is known of a schedule before training: its first value, and optax's own at their end."""

import contextlib
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

_LAST = np.iinfo(np.int32).max


def _is_optax(schedule: Any) -> bool:
    """Whether optax made a schedule, and all that it is joined from."""
    if not str(getattr(schedule, "__module__", "")).startswith("optax."):
        return False
    parts = []
    for cell in getattr(schedule, "__closure__", None) or ():
        with contextlib.suppress(ValueError):  # a cell may be empty
            parts.extend(jax.tree.leaves(cell.cell_contents))
    return all(_is_optax(part) for part in parts if callable(part))


def _known_values(schedule: Any) -> Iterator[tuple[int, float]]:
    """Counts and values. Only optax's are asked for the last: others may count their way there."""
    for count in (0, _LAST) if _is_optax(schedule) else (0,):
        # A schedule may need what is there in training alone: a mapped axis, a file.
        with contextlib.suppress(Exception), jax.ensure_compile_time_eval():
            value = schedule(jnp.asarray(count, jnp.int32))
            if not isinstance(value, Tracer) and np.ndim(value) == 0:
                yield count, float(value)


def check_radius(rho: Any) -> None:
    """Raises where rho is a schedule that is known to be negative at its start or at its end."""
    if not callable(rho):
        return
    for count, value in _known_values(rho):
        if value < 0:
            raise ValueError(
                f"rho must be at least 0, but its schedule gives {value:g} at count {count}, where "
                "eps would point downhill; bound it, "
                "lambda count: jnp.maximum(schedule(count), 0.0), or end it higher."
            )
