"""Types in the signatures of asam_jax, and the states of its transformations."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax

PyTree = Any
Scalar = jax.typing.ArrayLike
KeyPath = tuple[Any, ...]

Operator = Callable[[PyTree], PyTree]
"""T_w: a function from parameters to a tree of scales that broadcast to the leaves."""

LeafPredicate = Callable[[KeyPath, Any], bool]
"""A rule from a leaf's key path and the leaf to whether T_w scales it: `not_bias`, `all_leaves`."""

FilterAxes = Callable[[KeyPath, Any], tuple[int, ...] | None]
"""A rule from a leaf's key path and the leaf to the axes of one filter, or None without one."""

LayerAxes = tuple[int, ...] | Callable[[KeyPath, Any], tuple[int, ...]]
"""The axes along which layers are stacked: for every leaf, or a rule from key path and leaf."""

Radius = Scalar | optax.Schedule
"""rho: a scalar of at least 0, or an optax schedule, from the count of updates to such a scalar."""

AxisName = str | int | tuple[str | int, ...] | list[str | int] | None
"""One mapped axis, several, or none, as `jax.pmap`, `jax.vmap` and `jax.shard_map` name them."""


class Descent(NamedTuple):
    """A rule that combines two gradients, for `sharpness_aware(descent=...)`.

    `axes` are `sharded_axis_name`, over which inner products sum. Frozen entries are 0 in what the
    rule is given.

    Attributes:
      init: from parameters to the state of the rule.
      perturbed: from (g, g', state, axes) to (updates, state), where eps was computed: g is the
        gradient at w, g' the one at w + eps, both averaged over `axis_name`.
      unperturbed: from (g, state, axes) to updates, at steps that skip the perturbation.
    """

    init: Callable[[PyTree], Any]
    perturbed: Callable[[PyTree, PyTree, Any, tuple[Any, ...]], tuple[PyTree, Any]]
    unperturbed: Callable[[PyTree, Any, tuple[Any, ...]], PyTree]


class SharpnessAwareState(NamedTuple):
    """State of `sharpness_aware`: the updates made, which rho and `every` read, and its rules'."""

    step: jax.typing.ArrayLike
    ascent: Any = ()
    descent: Any = ()


class AlternatingState(NamedTuple):
    """State of `alternating`: complete steps; whether eps is added, and w; whether it is finite."""

    step: jax.typing.ArrayLike
    perturbed: jax.Array
    params: PyTree
    base: optax.OptState
    finite: jax.typing.ArrayLike


class DecoupledState(NamedTuple):
    """State of `decoupled_wsam`: the updates made, which schedules read, and the base's."""

    step: jax.typing.ArrayLike
    base: optax.OptState


class RememberState(NamedTuple):
    """State of `remember`: the moving average of the gradients that passed."""

    direction: PyTree
