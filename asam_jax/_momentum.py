"""Steps of one gradient: eps along what the optimizer keeps of gradients."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import optax

from asam_jax import _checks, _collectives, _tree
from asam_jax._operators import elementwise
from asam_jax._perturbation import perturbation
from asam_jax.typing import AxisName, Operator, PyTree, RememberState, Scalar


def remember(decay: Scalar = 0.0) -> optax.GradientTransformation:
    """Keeps the gradient that passes, for `momentum_ascent` to perturb along at the next step.

        direction = decay * direction + (1 - decay) * g

    A gradient that is not finite leaves the state, a `typing.RememberState`, as it was. Where that
    of a frozen leaf can be NaN, leave the leaf out: `optax.masked(remember(), mask)`.

    Args:
      decay: in [0, 1), else a ValueError; 0 keeps the last gradient. May be traced.

    >>> import asam_jax, jax.numpy as jnp, optax
    >>> tx = optax.chain(asam_jax.remember(), optax.sgd(0.1))
    >>> w = jnp.array([3.0, 4.0])
    >>> _, state = tx.update(jnp.array([1.0, 0.0]), tx.init(w), w)
    >>> asam_jax.momentum_ascent(w, state, rho=0.5, operator=asam_jax.identity())
    Array([3.5, 4. ], dtype=float32)
    """
    _checks.number("decay", decay, 0.0, 1.0)

    def init_fn(params: PyTree) -> RememberState:
        return RememberState(direction=optax.tree.zeros_like(params))

    def update_fn(
        updates: PyTree, state: Any, params: PyTree | None = None
    ) -> tuple[PyTree, RememberState]:
        del params
        weight = jnp.asarray(decay)
        shrunk = jax.tree.map(lambda m: m * weight.astype(m.dtype), state.direction)
        new = _tree.plus(shrunk, 1 - weight, updates)
        over = frozenset().union(*map(_collectives.varying_axes, jax.tree.leaves(updates)))
        kept = _tree.if_finite(new, state.direction, updates, tuple(sorted(over)))
        return updates, RememberState(kept)

    return optax.GradientTransformation(init_fn, update_fn)


def momentum_ascent(
    params: PyTree,
    opt_state: optax.OptState,
    *,
    rho: Scalar,
    operator: Operator = elementwise(),  # noqa: B008 (a frozen value)
    p: float = 2.0,
    sign: int = 1,
    contrast: Scalar = 0.0,
    sharded_axis_name: AxisName = None,
) -> PyTree:
    """Returns w + eps, eps along what the optimizer keeps: a step costs one gradient.

        direction = sign * remembered - contrast * momentum
        eps = perturbation(w, direction, rho=rho, operator=operator, p=p)

    Take the gradient there and update w with it:

        grads = jax.grad(loss)(asam_jax.momentum_ascent(params, opt_state, rho=0.5), batch)
        updates, opt_state = tx.update(grads, opt_state, params)

    Loss, auxiliary output and BatchNorm statistics are then those at w + eps. On several devices
    average the gradient before update, as for SGD. Before the first update eps is zero. (Becker et
    al., Momentum-SAM, 2024, with sign=-1; with contrast, Friendly SAM.)

    Args:
      params: w, the parameters that update changes.
      opt_state: the optimizer's state, through wrappers and `optax.partition`; of nnx.Optimizer,
        its opt_state and nnx.state(model, nnx.Param), both by nnx.as_pure. The direction is that of
        `remember` if the chain has it, else the trace of `optax.trace` (`optax.sgd`), else the
        first moment `mu` of `optax.adam` and others; 0 for a parameter of which nothing is kept.
      rho: see `perturbation`, as for operator, p and sharded_axis_name.
      sign: 1 perturbs along the averaged gradients, -1 along the step to come.
      contrast: how much of the momentum is subtracted from what `remember` keeps; may be traced.
        Friendly SAM's sigma = 1 is 1 - m for `optax.sgd(lr, momentum=m)`, and 1 for Adam's mean.

    Raises:
      ValueError: if opt_state holds no momentum (with contrast: not both), several of a
        parameter, or one that is already scaled by the learning rate (`optax.rmsprop`,
        `optax.lars`); as `perturbation`.

    >>> import asam_jax, jax, jax.numpy as jnp, numpy as np, optax
    >>> grad_fn = jax.grad(lambda w: jnp.sum(w**2))
    >>> w, tx = jnp.array([3.0, 4.0]), optax.sgd(0.1, momentum=0.9)
    >>> state = tx.init(w)
    >>> for _ in range(2):
    ...     at = asam_jax.momentum_ascent(w, state, rho=0.5, operator=asam_jax.identity())
    ...     updates, state = tx.update(grad_fn(at), state, w)
    ...     w = optax.apply_updates(w, updates)
    >>> print(np.asarray(w).round(2))
    [1.32 1.76]
    """
    if sign not in (1, -1):
        raise ValueError(f"sign must be 1 or -1, got {sign!r}.")
    _checks.number("contrast", contrast, 0.0)
    contrasted = not (isinstance(contrast, (int, float)) and contrast == 0)
    kinds = ("direction",) if contrasted else ("direction", "trace", "mu")
    direction = _remembered(params, opt_state, kinds)
    if sign == -1:
        direction = jax.tree.map(jnp.negative, direction)
    if contrasted:
        momentum = _remembered(params, opt_state, ("trace", "mu"))
        direction = _tree.plus(direction, -jnp.asarray(contrast), momentum)
    eps = perturbation(
        params, direction, rho=rho, operator=operator, p=p, sharded_axis_name=sharded_axis_name
    )
    return jax.tree.map(jnp.add, params, eps)


def _states(node: Any, followed: bool = False) -> Iterator[tuple[Any, bool]]:
    """The NamedTuples in an optimizer's state, and whether another of their chain comes after."""
    if hasattr(node, "_fields"):
        yield node, followed
    if isinstance(node, (tuple, list, dict)):
        chain = type(node) in (tuple, list)
        for place, child in enumerate(node.values() if isinstance(node, dict) else node):
            yield from _states(child, place + 1 < len(node) if chain else followed)


def _remembered(params: PyTree, opt_state: optax.OptState, kinds: tuple[str, ...]) -> PyTree:
    """The first of the kinds of field that there is, like params; 0 where it has no leaf."""
    found: dict[str, list[list[Any]]] = {}
    for state, followed in _states(opt_state):
        for kind in set(kinds).intersection(state._fields):
            if leaves := _leaves_like(params, getattr(state, kind)):
                found.setdefault(kind if kind != "trace" or followed else "step", []).append(leaves)
    present = [kind for kind in kinds if kind in found]
    if not present and "step" in found:
        raise ValueError(
            "opt_state holds a trace that is the last of its chain, as optax.rmsprop's and "
            "optax.lars' are: a step already scaled by the learning rate, which points downhill. "
            "Put asam_jax.remember(decay) in front of the optimizer."
        )
    if not present:
        raise ValueError(
            f"opt_state holds no momentum (none of {', '.join(kinds)}) of the parameters' shapes: "
            "give the optimizer one (optax.sgd(lr, momentum=0.9)), or put asam_jax.remember() into "
            "the chain to perturb along the last gradient."
        )
    if present[0] != "direction" and len(found) > 1:
        raise ValueError(
            f"opt_state holds fields of several kinds, {sorted(found)}, which differ in scale; put "
            "asam_jax.remember(decay) in front of what divides the parameters, which says what to "
            "perturb along."
        )
    return _merged(present[0], params, found[present[0]])


def _leaves_like(params: PyTree, tree: PyTree) -> list[Any]:
    """What `tree` holds for each parameter, None for an `optax.MaskedNode`; [] where unlike."""

    def of(w: Any, kept: Any) -> Any:
        if jax.tree.leaves(kept) and jnp.shape(kept) != jnp.shape(w):
            raise ValueError
        return kept if jax.tree.leaves(kept) else optax.MaskedNode

    try:
        return jax.tree.leaves(jax.tree.map(of, params, tree))
    except (ValueError, TypeError):
        return []


def _merged(kind: str, params: PyTree, found: list[list[Any]]) -> PyTree:
    """One tree of several, of which optax.partition holds one for each label."""
    leaves, treedef = jax.tree.flatten(params)
    result = []
    for w, *kept in zip(leaves, *found, strict=True):
        kept = [leaf for leaf in kept if leaf is not optax.MaskedNode]
        if len(kept) > 1:
            raise ValueError(
                f"opt_state holds {len(kept)} fields named {kind!r} of one parameter; put "
                "asam_jax.remember(decay) into the chain, which says what to perturb along, and "
                "give it one momentum."
            )
        result.append(kept[0] if kept else jnp.zeros_like(w))
    return treedef.unflatten(result)
