"""A batch cut along its leading axis of examples, and loops over the pieces."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer

from asam_jax import _checks
from asam_jax._checks import PyTree
from asam_jax._programs import traced


def size_of(batch: PyTree) -> int:
    """The number of examples, or an error where the arrays have no such axis in common."""
    sizes = {jnp.shape(leaf)[:1] for leaf in jax.tree.leaves(batch)}
    if len(sizes) != 1 or () in sizes:
        raise ValueError(
            "batch must hold arrays with one leading axis of examples in common, got "
            + (f"leading axes {sorted(sizes)}" if sizes else "no arrays")
            + "; numbers in a list are a leaf each: make them an array."
        )
    examples = sizes.pop()[0]
    if not examples:
        raise ValueError("batch must hold an example at least, got arrays of none.")
    return examples


def divisor(name: str, size: Any, total: int, of: str) -> int:
    """`size`, or all of `total` for None; an error where it is no divisor."""
    if size is None:
        return total
    number = _checks.integer(size)
    if number is None or number < 1 or total % number:
        raise ValueError(
            f"{name} must be a positive integer that divides {of}, got {name}={size} for {total} "
            "examples; choose a divisor or drop the remainder of the batch."
        )
    return number


def piece(batch: PyTree, index: Any, size: int) -> PyTree:
    """Piece `index` of `size` examples: of NumPy arrays a view, so that none is copied whole."""

    def cut(leaf: Any) -> Any:
        if isinstance(index, Tracer):
            return jax.lax.dynamic_slice_in_dim(jnp.asarray(leaf), index * size, size)
        return leaf[index * size : (index + 1) * size]

    return jax.tree.map(cut, batch)


def rolled(*trees: PyTree) -> bool:
    """Whether loops over the pieces belong into the program as loops.

    They do where the caller traces for an accelerator. On the CPU a convolution inside a loop of
    a program runs 20 to 45 times slower than outside (jax-ml/jax issue 12868): there a traced
    caller gets the loop unrolled. Without a tracer the loop is Python's, over compiled functions.
    """
    return traced(*trees) and jax.default_backend() != "cpu"


def repeat(
    count: int, function: Callable[[PyTree], PyTree], state: PyTree, *, roll: bool
) -> PyTree:
    """Applies `function` to the state `count` times."""
    if roll:
        return jax.lax.fori_loop(0, count, lambda _, s: function(s), state)
    for _ in range(count):
        state = function(state)
    return state
