"""Checks of arguments: every message names the argument, the cause and the fix."""

import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer

PyTree = Any
Scalar = jax.typing.ArrayLike


def at_least(name: str, value: Any, low: float) -> None:
    """Raises unless `value` is a scalar of at least `low`; a traced value has no value to check."""
    if isinstance(value, Tracer):
        return
    number = isinstance(value, (int, float, np.generic, np.ndarray, jax.Array))
    if not number or np.ndim(value) != 0:
        raise TypeError(
            f"{name} must be a number, got {value!r}; pass a scalar of at least {low:g}."
        )
    if not float(value) >= low:  # also refuses NaN
        raise ValueError(f"{name} must be at least {low:g}, got {value}; pass a larger {name}.")


def fraction(name: str, value: Any) -> None:
    """Raises unless `value` is a scalar from 0 to 1."""
    at_least(name, value, 0.0)
    if not isinstance(value, Tracer) and float(value) > 1:
        raise ValueError(f"{name} must be at most 1, got {value}; pass a smaller {name}.")


def below(name: str, value: Any, high: float) -> None:
    """Raises unless `value` is less than `high`."""
    if not isinstance(value, Tracer) and float(value) >= high:
        raise ValueError(f"{name} must be less than {high:g}, got {value}; pass a smaller {name}.")


def integer(value: Any) -> int | None:
    """`value` as a Python integer, of NumPy's and JAX's too; None where it is no known integer."""
    if isinstance(value, bool):
        return None
    try:
        return operator.index(value)
    except TypeError:  # a tracer's error is one, too
        return None


def count(name: str, value: Any, low: int) -> int:
    """`value` as a Python integer, or an error unless it is one of at least `low`."""
    number = integer(value)
    if number is None or number < low:
        kind = "a positive integer" if low == 1 else f"an integer of at least {low}"
        raise ValueError(f"{name} must be {kind}, got {value!r}.")
    return number


def period(every: Any) -> None:
    """Raises unless `every` is a positive integer, or an integer array (an injected one, say)."""
    if not isinstance(every, jax.Array):
        count("every", every, 1)
    elif every.ndim or not jnp.issubdtype(every.dtype, jnp.integer):
        raise TypeError(f"every must be a positive integer, got {every!r}.")


def radius(rho: Any) -> None:
    """Raises unless `rho` can be the radius of a region."""
    at_least("rho", rho, 0.0)


def norm_order(p: Any) -> None:
    """Raises unless `p` is the order of a norm."""
    at_least("p", p, 1.0)


def function(name: str, value: Any) -> None:
    """Raises unless `value` can be called."""
    if not callable(value):
        hint = f" {_STATIC}" if name == "operator" and isinstance(value, jax.Array) else ""
        raise TypeError(f"{name} must be callable, got {value!r}.{hint}")


_STATIC = (
    "optax.inject_hyperparams takes every callable for a schedule and calls it with the update "
    'count; name it: optax.inject_hyperparams(factory, static_args=("operator",)).'
)


def not_a_count(params: PyTree) -> None:
    """Raises where an operator is called as a schedule would be, with a count of updates."""
    number = jax.tree_util.all_leaves([params]) and jnp.ndim(params) == 0
    if number and jnp.issubdtype(jnp.result_type(params), jnp.integer):
        raise TypeError(f"operator was called with an integer, not with parameters. {_STATIC}")


def transformation(name: str, value: Any) -> None:
    """Raises unless `value` is an optax transformation."""
    if not (hasattr(value, "init") and hasattr(value, "update")):
        raise TypeError(
            f"{name} must be an optax.GradientTransformation such as optax.sgd(0.1), got {value!r}."
        )


def rule(name: str, value: Any) -> None:
    """Raises unless `value` is None or a `Descent`."""
    if value is not None and not hasattr(value, "ascended"):
        raise TypeError(
            f"{name} must be asam_jax.gsam_descent(alpha) or another asam_jax.Descent, "
            f"got {value!r}."
        )


def no_placeholders(tree: PyTree) -> None:
    """Raises where optax.masked or optax.partition has replaced leaves by placeholders."""
    leaves = jax.tree.leaves(tree, is_leaf=lambda leaf: isinstance(leaf, optax.MaskedNode))
    if any(isinstance(leaf, optax.MaskedNode) for leaf in leaves):
        raise ValueError(
            "updates holds optax.MaskedNode placeholders: inside optax.masked or optax.partition "
            "grad_fn cannot be called on the parameters. Chain the sharpness-aware link before "
            "them and give it operator=asam_jax.masked(operator, mask); see `asam_jax.masked`."
        )


def no_pairs(params: PyTree) -> None:
    """Raises inside optax.contrib.split_real_and_imaginary, which does not hand grad_fn on."""

    def is_pair(node: Any) -> bool:
        return type(node).__name__ == "SplitRealAndImaginaryArrays"

    for path, node in jax.tree_util.tree_leaves_with_path(params, is_leaf=is_pair):
        if is_pair(node):
            raise TypeError(f"params{jax.tree_util.keystr(path)} is complex{_TWO_LEAVES}")


def floating(name: str, tree: PyTree) -> None:
    """Raises where a leaf is not real floating point."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        where = f"{name}{jax.tree_util.keystr(path)}"
        try:
            # Names of dtypes and dtypes themselves would pass for arrays of their kind.
            dtype = None if isinstance(leaf, (str, type, np.dtype)) else jnp.result_type(leaf)
        except TypeError:
            dtype = None
        if dtype is None:
            raise TypeError(f"{where} is {leaf!r}, which is no array{_ARRAYS_ALONE}")
        if jnp.issubdtype(dtype, jnp.complexfloating):
            raise TypeError(f"{where} has dtype {dtype}{_TWO_LEAVES}")
        if not jnp.issubdtype(dtype, jnp.floating):
            raise TypeError(f"{where} has dtype {dtype}{_ARRAYS_ALONE}")


_ARRAYS_ALONE = (
    ": only real floating-point leaves can be perturbed. Keep other leaves out of the parameters: "
    "params, static = eqx.partition(model, eqx.is_inexact_array), with eqx.combine(params, static) "
    "in the loss; or nnx.split(model, nnx.Param, ...)."
)
_TWO_LEAVES = (
    ": only real floating-point leaves can be perturbed. Keep a complex parameter as two real "
    "leaves, {'real': z.real, 'imag': z.imag}, and make jax.lax.complex(real, imag) of them in "
    "the loss. (optax.contrib.split_real_and_imaginary does not help: it hands no grad_fn on.)"
)


def same_tree(
    expected: str,
    reference: PyTree,
    name: str,
    tree: PyTree,
    *,
    dtypes: bool = False,
    hint: str = "",
) -> None:
    """Raises unless `tree` has the structure and the shapes (and the dtypes) of `reference`."""
    if jax.tree.structure(reference) != jax.tree.structure(tree):
        raise ValueError(
            f"{name} must have the tree structure of {expected}.{hint}\n"
            f"{expected}: {jax.tree.structure(reference)}\n{name}: {jax.tree.structure(tree)}"
        )
    leaves = jax.tree_util.tree_leaves_with_path(reference)
    for (path, a), b in zip(leaves, jax.tree.leaves(tree), strict=True):
        where = jax.tree_util.keystr(path)
        if jnp.shape(a) != jnp.shape(b):
            raise ValueError(
                f"{name}{where} has shape {jnp.shape(b)}, but {expected}{where} has shape "
                f"{jnp.shape(a)}; the shapes must agree."
            )
        if dtypes and jnp.result_type(a) != jnp.result_type(b):
            raise TypeError(
                f"{name}{where} has dtype {jnp.result_type(b)}, but {expected}{where} has dtype "
                f"{jnp.result_type(a)}; the dtypes must agree."
            )


def scales(params: PyTree, result: PyTree) -> None:
    """Raises unless an operator's result has one broadcastable scale for each parameter."""
    if jax.tree.structure(params) != jax.tree.structure(result):
        raise ValueError(
            "operator must return one scale for each leaf of params.\n"
            f"params: {jax.tree.structure(params)}\noperator(params): {jax.tree.structure(result)}"
        )
    leaves = jax.tree_util.tree_leaves_with_path(params)
    for (path, leaf), scale in zip(leaves, jax.tree.leaves(result), strict=True):
        shape, target = jnp.shape(scale), jnp.shape(leaf)
        fits = len(shape) in (0, len(target)) and all(
            s in (1, t) for s, t in zip(shape, target, strict=False)
        )
        if not fits:
            raise ValueError(
                f"operator returned a scale of shape {shape} at params{jax.tree_util.keystr(path)} "
                f"of shape {target}; a scale needs the parameter's rank, with 1 where it is shared."
            )


def gradient_function(grad_fn: Callable[..., Any] | None) -> Callable[..., Any]:
    """Returns `grad_fn`, or raises when there is none."""
    if grad_fn is None:
        raise ValueError(
            "grad_fn is missing: call update(grads, state, params, grad_fn=f) with f(params) -> "
            "gradients at params for the same mini-batch. Training loops that own the gradient "
            "call and cannot pass it use asam_jax.alternating."
        )
    function("grad_fn", grad_fn)
    return grad_fn


def parameters(params: PyTree) -> None:
    """Raises when update() was called without parameters."""
    if params is None:
        raise ValueError(
            "params is missing: the perturbation scales with the parameters; call "
            "update(grads, state, params, ...)."
        )
