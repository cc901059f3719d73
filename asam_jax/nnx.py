"""The sharpness-aware gradient for Flax NNX modules; the only module that imports flax."""

import functools
from collections.abc import Callable
from typing import Any

import jax
from flax import nnx

import asam_jax
from asam_jax.typing import AxisName, Operator


def value_and_grad(
    loss_fn: Callable[..., Any],
    *,
    rho: Any,
    operator: Operator = asam_jax.elementwise(),  # noqa: B008 (a frozen value)
    p: float = 2.0,
    has_aux: bool = False,
    wrt: Any = nnx.Param,
    ascent_fun: Callable[..., Any] | None = None,
    axis_name: AxisName = None,
    perturb_axis_name: AxisName = None,
    sharded_axis_name: AxisName = None,
) -> Callable[..., Any]:
    """Value at w and gradient at w + eps of a module's loss: `nnx.value_and_grad` for ASAM.

    State is updated once: what the first pass writes to any `nnx.Variable` outside wrt (BatchNorm
    statistics, counts of RNG streams, what `sow` keeps) reaches the module in place, and modules,
    metrics and RNGs among the further arguments. The second pass, at w + eps, starts from the same
    state, so that both draw the same dropout masks; what it writes is dropped. Works eagerly and
    under `nnx.jit`, `pmap`, `shard_map` and `scan`.

    Args:
      loss_fn: `loss_fn(model, *args, **kwargs)` -> a scalar, or `(scalar, aux)` with has_aux.
      rho: see `asam_jax.value_and_grad`, as for p, has_aux and ascent_fun.
      operator: T_w, a function of `nnx.as_pure(nnx.state(model, wrt))`.
      wrt: which Variables are w, an NNX filter. The others are not perturbed.
      axis_name: mapped axes over which value and gradient are averaged; state and aux are not:
        average them, or give BatchNorm an axis_name, too. The other axes are as there.

    Returns:
      A function of a model (a module, or a tuple, list or dict of modules; by position) and
      loss_fn's other arguments that returns `(value, grads)`, or `((value, aux), grads)`. grads is
      like `nnx.state(model, wrt)`: `nnx.Optimizer(model, tx, wrt=wrt).update(model, grads)`.

    >>> import asam_jax.nnx, jax.numpy as jnp, optax
    >>> from flax import nnx
    >>> model = nnx.BatchNorm(4, rngs=nnx.Rngs(0))
    >>> optimizer = nnx.Optimizer(model, optax.adamw(1e-3), wrt=nnx.Param)
    >>> loss_fn = lambda model, x: jnp.mean((model(x) - 1) ** 2)
    >>> loss, grads = asam_jax.nnx.value_and_grad(loss_fn, rho=2.0)(model, jnp.ones((2, 4)))
    >>> updates = optimizer.update(model, grads)
    >>> loss
    Array(1., dtype=float32)
    """
    selected = nnx.filterlib.to_predicate(wrt)

    def trained(path: Any, leaf: Any) -> bool:
        return path[0] == 0 and selected(path[1:], leaf)

    moving = nnx.All(nnx.Variable, nnx.Not(trained))

    def run(fun: Callable[..., Any], params: Any, graphdef: Any, rest: Any) -> tuple[Any, Any]:
        copies = nnx.merge(graphdef, nnx.State({0: params}), rest, copy=True)
        result = fun(copies[0], *copies[1], **copies[2])
        return result, nnx.state(copies, moving)

    def pure_loss(*inputs: Any) -> tuple[Any, Any]:
        result, state = run(loss_fn, *inputs)
        value, aux = result if has_aux else (result, None)
        return value, (aux, state)

    pure_value_and_grad = asam_jax.value_and_grad(
        pure_loss,
        rho=rho,
        operator=operator,
        p=p,
        has_aux=True,
        ascent_fun=ascent_fun and (lambda *inputs: run(ascent_fun, *inputs)[0]),
        axis_name=axis_name,
        perturb_axis_name=perturb_axis_name,
        sharded_axis_name=sharded_axis_name,
    )

    @functools.wraps(loss_fn)
    def wrapped(model: Any, /, *args: Any, **kwargs: Any) -> Any:
        inputs = (model, args, kwargs)  # split as one graph, because they may share Variables
        graphdef, params, rest = nnx.split(inputs, trained, ...)
        if not params:
            raise ValueError(f"wrt={wrt} selects no nnx.Variable of the model")
        (value, (aux, state)), grads = pure_value_and_grad(nnx.as_pure(params[0]), graphdef, rest)
        grads = jax.tree.unflatten(jax.tree.structure(params[0]), jax.tree.leaves(grads))
        nnx.update(inputs, state)
        return ((value, aux) if has_aux else value), grads

    return wrapped
