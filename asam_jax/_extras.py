"""Keywords of update that end at the sharpness-aware link, where the base does not know them."""

import inspect
from collections.abc import Callable
from typing import Any

import optax

from asam_jax._checks import PyTree

_OWN = frozenset({"grad_fn", "climb"})


def _parameters(function: Callable[..., Any]) -> Any:
    return inspect.signature(function).parameters


def without_own(
    base: optax.GradientTransformation,
) -> optax.GradientTransformationExtraArgs:
    """The base, not handed grad_fn and climb where it would refuse them.

    It would where its update takes neither them nor any keyword, or where it holds one of optax's
    line searches: those come with value_fn, and refuse what value_fn does not name.
    """
    base = optax.with_extra_args_support(base)
    named = _parameters(base.update)
    takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in named.values())

    def update(
        updates: PyTree, state: optax.OptState, params: PyTree | None = None, **extra_args: Any
    ) -> tuple[PyTree, optax.OptState]:
        ended = _OWN - named.keys()
        if "value_fn" in extra_args:
            ended -= _parameters(extra_args["value_fn"]).keys()
        elif takes_any:
            ended = frozenset()
        rest = {name: value for name, value in extra_args.items() if name not in ended}
        return base.update(updates, state, params, **rest)

    return optax.GradientTransformationExtraArgs(base.init, update)
