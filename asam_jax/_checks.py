"""Checks of arguments: every message names the argument, what was wrong and what to do."""

import contextlib
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer

from asam_jax.typing import PyTree

_keystr = jax.tree_util.keystr
_leaves_with_path = jax.tree_util.tree_leaves_with_path


def number(name: str, value: Any, low: float, below: float = math.inf) -> None:
    """Raises unless low <= value < below, a scalar; a traced one has no value to check."""
    if not isinstance(value, (int, float, np.generic, np.ndarray, jax.Array)) or np.ndim(value):
        raise TypeError(f"{name} must be a number, got a {type(value).__name__}; pass a scalar.")
    if not isinstance(value, Tracer) and not low <= float(value) < below:  # also refuses NaN
        bounds = "finite" if below == math.inf else f"less than {below:g}"
        raise ValueError(f"{name} must be at least {low:g} and {bounds}, got {value}.")


def region(rho: Any, operator: Any, p: Any, *, schedule: bool = False) -> float:
    """The order p as a Python float; raises unless ||T_w^-1 eps||_p <= rho is a region."""
    if not callable(rho):
        number("rho", rho, 0.0)
    elif not schedule:
        raise TypeError(
            "rho must be a number here, got a schedule; call it with the step: rho=schedule(step)."
        )
    if isinstance(p, Tracer):
        raise TypeError(
            "p must be a Python number, got a traced one; it decides which program is compiled. "
            "Where optax.inject_hyperparams traces it, name it in static_args=('p',)."
        )
    if p != math.inf:
        number("p", p, 1.0)
    if not callable(operator):
        raise TypeError(f"operator must be callable, got a {type(operator).__name__}.")
    name = getattr(operator, "__name__", "")
    if name in ("identity", "elementwise", "filterwise", "masked"):
        raise TypeError(f"operator={name} must be called: operator=asam_jax.{name}(...).")
    # Closer to 1 the powers of 1 / (p - 1) have no digits left.
    return 1.0 if float(p) < 1 + 1e-6 else float(p)


def count(name: str, value: Any, low: int) -> int:
    """`value` as a Python integer, NumPy's too, or an error unless it is one of at least `low`."""
    integer = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not integer or value < low:
        raise ValueError(f"{name} must be an integer of at least {low}, got {value!r}.")
    return int(value)


def base_optimizer(base: Any) -> optax.GradientTransformationExtraArgs:
    """The base, not given grad_fn and perturb, which optax's line searches refuse."""
    if not hasattr(base, "update"):
        kind = type(base).__name__
        raise TypeError(f"base must be an optax optimizer such as optax.sgd(0.1), got a {kind}.")
    base = optax.with_extra_args_support(base)

    def update_fn(updates: PyTree, state: Any, params: PyTree | None = None, **extra_args: Any):
        rest = {n: arg for n, arg in extra_args.items() if n not in ("grad_fn", "perturb")}
        return base.update(updates, state, params, **rest)

    return optax.GradientTransformationExtraArgs(base.init, update_fn)


def real_floating(name: str, tree: PyTree) -> None:
    """Raises where a leaf is not real floating point."""
    for path, leaf in _leaves_with_path(tree):
        number = isinstance(leaf, (bool, int, float, complex)) or hasattr(leaf, "dtype")
        kind = jnp.result_type(leaf) if number else type(leaf).__name__
        if not (number and jnp.issubdtype(kind, jnp.floating)):
            raise TypeError(
                f"{name}{_keystr(path)} is of {kind}: only real floating-point arrays can be "
                "perturbed. Keep other leaves out of the parameters: params, static = "
                "eqx.partition(model, eqx.is_inexact_array), with eqx.combine(params, static) in "
                "the loss; or nnx.split(model, nnx.Param, ...). Keep a complex parameter as two "
                "real leaves, and make jax.lax.complex(real, imag) of them in the loss."
            )


def same_tree(
    expected: str, reference: PyTree, name: str, tree: PyTree, *, dtypes: bool = False
) -> None:
    """Raises unless `tree` has the structure and the shapes (and dtypes) of `reference`."""
    if jax.tree.structure(reference) != jax.tree.structure(tree):
        raise ValueError(
            f"{name} must have the tree structure of {expected}.\n"
            f"{expected}: {jax.tree.structure(reference)}\n{name}: {jax.tree.structure(tree)}"
        )
    kinds = {"shape": jnp.shape} | ({"dtype": jnp.result_type} if dtypes else {})
    for (path, a), b in zip(_leaves_with_path(reference), jax.tree.leaves(tree), strict=True):
        for kind, of in kinds.items():
            if of(a) != of(b):
                raise (ValueError if kind == "shape" else TypeError)(
                    f"{name}{_keystr(path)} has {kind} {of(b)}, but {expected}{_keystr(path)} has "
                    f"{kind} {of(a)}; the {kind}s must agree."
                )


def scales(params: PyTree, result: PyTree) -> None:
    """Raises unless an operator's result has one broadcastable scale for each parameter."""
    if jax.tree.structure(params) != jax.tree.structure(result):
        raise ValueError(f"operator must return a tree like params, got {type(result).__name__}.")
    for (path, w), t in zip(_leaves_with_path(params), jax.tree.leaves(result), strict=True):
        shape, own = jnp.shape(t), jnp.shape(w)
        fits = len(shape) == len(own) and all(s in (1, n) for s, n in zip(shape, own, strict=True))
        if shape and not fits:
            raise ValueError(
                f"operator returned a scale of shape {shape} at params{_keystr(path)} of shape "
                f"{own}; a scale needs the parameter's rank, with 1 where it is shared."
            )


def update_arguments(updates: PyTree, params: PyTree) -> None:
    """Raises where `update` was called without parameters, or inside optax.masked."""
    if params is None:
        raise ValueError("params is missing: call update(grads, state, params, ...).")
    leaves = jax.tree.leaves(updates, is_leaf=lambda leaf: isinstance(leaf, optax.MaskedNode))
    if any(isinstance(leaf, optax.MaskedNode) for leaf in leaves):
        raise ValueError(
            "updates holds optax.MaskedNode placeholders. Chain the sharpness-aware transformation "
            "before optax.masked or optax.partition, with operator=asam_jax.masked(operator, mask)."
        )


def like_updates(updates: PyTree, result: PyTree) -> PyTree:
    """What grad_fn returned, as a tree like updates; each leaf may sit in a box (nnx.Param)."""
    structure = jax.tree.structure(updates)
    if isinstance(result, tuple) and len(result) == 2 and jax.tree.structure(result) != structure:
        for place in (0, 1):  # of jax.grad(loss, has_aux=True), of jax.value_and_grad(loss)
            if jax.tree.structure(result[place]) == structure:
                raise ValueError(
                    "grad_fn must return gradients alone, but returned a pair that holds them: "
                    f"append [{place}] to what it returns."
                )

    def only_leaf(box: Any) -> Any:
        (leaf,) = jax.tree.leaves(box)  # a ValueError where there are more, or none
        return leaf

    with contextlib.suppress(ValueError):
        result = jax.tree.map(lambda _, box: only_leaf(box), updates, result)
    same_tree("updates", updates, "grad_fn's result", result, dtypes=True)
    return result
