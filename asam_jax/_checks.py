"""Checks of arguments: every message names the argument, what was wrong and what to do."""

import contextlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer

from asam_jax.typing import KeyPath, PyTree


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.generic, np.ndarray, jax.Array)) and not np.ndim(value)


def at_least(name: str, value: Any, low: float) -> None:
    """Raises unless `value` is a scalar of at least `low`; a traced value has no value to check."""
    if isinstance(value, Tracer):
        return
    if not _is_number(value):
        raise TypeError(
            f"{name} must be a number, got a {type(value).__name__}; pass a scalar of at least "
            f"{low:g}."
        )
    if not float(value) >= low:  # also refuses NaN
        raise ValueError(f"{name} must be at least {low:g}, got {value}; pass a larger {name}.")


def fraction(name: str, value: Any, *, below_one: bool = False) -> None:
    """Raises unless `value` is a scalar from 0 to 1, or below 1."""
    at_least(name, value, 0.0)
    if isinstance(value, Tracer):
        return
    if float(value) > 1 or (below_one and float(value) == 1):
        bound = "less than 1" if below_one else "at most 1"
        raise ValueError(f"{name} must be {bound}, got {value}; pass a smaller {name}.")


def radius(rho: Any, *, schedule: bool = False) -> None:
    """Raises unless `rho` can be the radius of a region, or a schedule where one is taken."""
    if callable(rho):
        if not schedule:
            raise TypeError(
                "rho must be a number here, got a schedule; call it with the step: "
                "rho=schedule(step)."
            )
    else:
        at_least("rho", rho, 0.0)


def norm_order(p: Any) -> float:
    """`p` as a Python float, or an error unless it is the order of a norm."""
    if isinstance(p, Tracer) or not _is_number(p):
        raise TypeError(
            f"p must be a Python number from 1 to infinity, got a {type(p).__name__}; it decides "
            "which program is compiled. Where optax.inject_hyperparams traces it, name it in "
            "static_args=('p',)."
        )
    if not float(p) >= 1:
        raise ValueError(f"p must be at least 1, got {p}; the norm of the region has no order < 1.")
    # Closer to 1 the powers of 1 / (p - 1) have no digits left.
    return 1.0 if float(p) < 1 + 1e-6 else float(p)


def count(name: str, value: Any, low: int) -> int:
    """`value` as a Python integer, NumPy's too, or an error unless it is one of at least `low`."""
    integer = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not integer or value < low:
        raise ValueError(f"{name} must be an integer of at least {low}, got {value!r}.")
    return int(value)


def function(name: str, value: Any) -> None:
    """Raises unless `value` can be called."""
    if not callable(value):
        raise TypeError(f"{name} must be callable, got a {type(value).__name__}.")


def transformation(name: str, value: Any) -> None:
    """Raises unless `value` is an optax transformation."""
    if not (hasattr(value, "init") and hasattr(value, "update")):
        raise TypeError(
            f"{name} must be an optax.GradientTransformation such as optax.sgd(0.1), got a "
            f"{type(value).__name__}."
        )


def base_optimizer(base: Any) -> optax.GradientTransformationExtraArgs:
    """The base, not given grad_fn and perturb, which optax's line searches refuse."""
    transformation("base", base)
    base = optax.with_extra_args_support(base)

    def update_fn(
        updates: PyTree,
        state: optax.OptState,
        params: PyTree | None = None,
        *,
        grad_fn: Any = None,
        perturb: Any = None,
        **extra_args: Any,
    ) -> tuple[PyTree, optax.OptState]:
        del grad_fn, perturb
        return base.update(updates, state, params, **extra_args)

    return optax.GradientTransformationExtraArgs(base.init, update_fn)


def period(every: Any) -> None:
    """Raises unless `every` is None, a positive integer, or an integer array (an injected one)."""
    if every is None:
        return
    if not isinstance(every, jax.Array):
        count("every", every, 1)
    elif every.ndim or not jnp.issubdtype(every.dtype, jnp.integer):
        raise TypeError(f"every must be a positive integer, got an array of {every.dtype}.")


def real_floating(name: str, tree: PyTree) -> None:
    """Raises where a leaf is not real floating point."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        dtype = getattr(leaf, "dtype", None)
        if isinstance(leaf, (bool, int, float, complex)):
            dtype = jnp.result_type(leaf)
        if dtype is not None and jnp.issubdtype(dtype, jnp.floating):
            continue
        where = f"{name}{jax.tree_util.keystr(path)}"
        if dtype is not None and jnp.issubdtype(dtype, jnp.complexfloating):
            raise TypeError(
                f"{where} has dtype {dtype}: only real floating-point leaves can be perturbed. "
                "Keep a complex parameter as two real leaves, and make jax.lax.complex(real, imag) "
                "of them in the loss."
            )
        kind = f"has dtype {dtype}" if dtype is not None else f"is a {type(leaf).__name__}"
        raise TypeError(
            f"{where} {kind}: only real floating-point arrays can be perturbed. Keep other leaves "
            "out of the parameters: params, static = eqx.partition(model, eqx.is_inexact_array), "
            "with eqx.combine(params, static) in the loss; or nnx.split(model, nnx.Param, ...)."
        )


def same_tree(expected: str, reference: PyTree, name: str, tree: PyTree) -> None:
    """Raises unless `tree` has the structure and the shapes of `reference`."""
    if jax.tree.structure(reference) != jax.tree.structure(tree):
        raise ValueError(
            f"{name} must have the tree structure of {expected}.\n"
            f"{expected}: {jax.tree.structure(reference)}\n{name}: {jax.tree.structure(tree)}"
        )
    leaves = jax.tree_util.tree_leaves_with_path(reference)
    for (path, a), b in zip(leaves, jax.tree.leaves(tree), strict=True):
        if jnp.shape(a) != jnp.shape(b):
            where = jax.tree_util.keystr(path)
            raise ValueError(
                f"{name}{where} has shape {jnp.shape(b)}, but {expected}{where} has shape "
                f"{jnp.shape(a)}; the shapes must agree."
            )


def axes_of(rule: str, path: KeyPath, leaf: Any, axes: Any) -> tuple[int, ...]:
    """The axes that a rule gave for a leaf, counted from the front; refuses those it has not."""
    ndim = len(np.shape(leaf))
    given = tuple(axes) if isinstance(axes, (tuple, list)) else (axes,)
    if any(not isinstance(a, (int, np.integer)) or not -ndim <= a < ndim for a in given):
        raise ValueError(
            f"{rule} gives {axes!r} at params{jax.tree_util.keystr(path)} of shape "
            f"{np.shape(leaf)}, and there are no such axes; a rule {rule}(path, leaf) -> axes can "
            "tell one leaf from another."
        )
    return tuple(sorted({int(a) % ndim for a in given}))


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
        if len(shape) not in (0, len(target)) or any(
            s not in (1, t) for s, t in zip(shape, target, strict=False)
        ):
            raise ValueError(
                f"operator returned a scale of shape {shape} at params{jax.tree_util.keystr(path)} "
                f"of shape {target}; a scale needs the parameter's rank, with 1 where it is shared."
            )


def update_arguments(updates: PyTree, params: PyTree) -> None:
    """Raises where `update` was called without parameters, or inside optax.masked."""
    if params is None:
        raise ValueError(
            "params is missing: the perturbation scales with the parameters; call "
            "update(grads, state, params, ...)."
        )
    leaves = jax.tree.leaves(updates, is_leaf=lambda leaf: isinstance(leaf, optax.MaskedNode))
    if any(isinstance(leaf, optax.MaskedNode) for leaf in leaves):
        raise ValueError(
            "updates holds optax.MaskedNode placeholders: inside optax.masked or optax.partition "
            "grad_fn cannot be called on the parameters. Chain the sharpness-aware transformation "
            "before them and give it operator=asam_jax.masked(operator, mask)."
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


def like_updates(updates: PyTree, result: PyTree) -> PyTree:
    """What grad_fn returned, as a tree like updates; each leaf may sit in a box (nnx.Param)."""
    name = "grad_fn's result"
    _explain_pair(updates, result)
    with contextlib.suppress(ValueError):
        result = jax.tree.map(lambda _, box: _only_leaf(box), updates, result)
    same_tree("updates", updates, name, result)
    for (path, a), b in zip(
        jax.tree_util.tree_leaves_with_path(updates), jax.tree.leaves(result), strict=True
    ):
        if jnp.result_type(a) != jnp.result_type(b):
            where = jax.tree_util.keystr(path)
            raise TypeError(
                f"{name}{where} has dtype {jnp.result_type(b)}, but updates{where} has dtype "
                f"{jnp.result_type(a)}; compute both gradients in the same way."
            )
    return result


def _only_leaf(box: Any) -> Any:
    (leaf,) = jax.tree.leaves(box)  # a ValueError where there are more, or none
    return leaf


def _explain_pair(updates: PyTree, result: PyTree) -> None:
    """Raises where grad_fn returned gradients together with a loss or an auxiliary output."""
    if not isinstance(result, tuple) or len(result) != 2:
        return
    for place, call in ((1, "jax.value_and_grad(loss)"), (0, "jax.grad(loss, has_aux=True)")):
        if jax.tree.structure(result[place]) == jax.tree.structure(updates):
            raise ValueError(
                f"grad_fn must return gradients alone, but returned a pair, as {call} does; append "
                f"[{place}] to what it returns."
            )
