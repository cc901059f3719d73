"""Dtypes to compute in: float32, or the parameter's own where that is wider."""

from collections.abc import Iterable
from typing import Any

import jax.numpy as jnp


def widest(dtypes: Iterable[Any]) -> Any:
    """The widest of some floating dtypes and float32 (also under strict promotion)."""
    return max([jnp.dtype(jnp.float32), *dtypes], key=lambda dtype: jnp.finfo(dtype).bits)


def wide(leaf: Any) -> Any:
    """The dtype in which scales and norms of a leaf are computed."""
    return widest([jnp.result_type(leaf)])
