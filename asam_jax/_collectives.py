"""Mapped axes: averages over them, and what shard_map's types say about a value."""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer

from asam_jax.typing import AxisName, PyTree

Axes = tuple[str | int, ...]


def as_tuple(axis_name: AxisName) -> Axes:
    """An axis name, several, or none, as a tuple."""
    if axis_name is None:
        return ()
    return tuple(axis_name) if isinstance(axis_name, (tuple, list)) else (axis_name,)


def check_names(
    axis_name: AxisName, perturb_axis_name: AxisName, sharded_axis_name: AxisName
) -> tuple[Axes, Axes, Axes]:
    """The three arguments as tuples; raises where they contradict each other."""
    axes, shared, sharded = map(as_tuple, (axis_name, perturb_axis_name, sharded_axis_name))
    extra = [axis for axis in shared if axis not in axes]
    if extra:
        raise ValueError(
            f"perturb_axis_name holds {extra}, which axis_name={axis_name!r} does not: an eps that "
            f"devices share needs a gradient that they share; add {extra} to axis_name."
        )
    both = [axis for axis in sharded if axis in axes]
    if both:
        raise ValueError(
            f"sharded_axis_name and axis_name both hold {both}: the gradient is either averaged "
            "or of each device's own parameters. Leave it out of one of them."
        )
    return axes, shared, sharded


def check_mapped(name: str, axes: Axes) -> None:
    """Raises where an axis is not mapped by pmap, shard_map or vmap around this call."""
    for axis in axes:
        try:
            jax.lax.axis_index(axis)
        except NameError as error:
            raise ValueError(
                f"{name}: {axis!r} is not a mapped axis here; call inside jax.pmap, jax.vmap or "
                f"jax.shard_map with that axis, or leave {name} out, as under jit."
            ) from error


def mean(tree: PyTree, axes: Iterable[str | int]) -> PyTree:
    """The mean of a tree over mapped axes."""
    return jax.lax.pmean(tree, tuple(axes)) if axes else tree


def varying_axes(value: Any) -> frozenset[str]:
    """The manual axes of shard_map over which the type of a value says that it varies."""
    return frozenset(jax.typeof(value).manual_axis_type.varying)


def vary(tree: PyTree, axes: Iterable[str | int]) -> PyTree:
    """Casts the leaves to vary over manual axes, so that gradients at them are not summed.

    Under `shard_map(check_vma=True)` the gradient with respect to a value that is the same on all
    devices is summed over them. Elsewhere (pmap, vmap, check_vma=False) there is nothing to cast.
    """
    manual = [axis for axis in axes if axis in jax.sharding.get_abstract_mesh().manual_axes]

    def cast(leaf: jax.Array) -> jax.Array:
        missing = tuple(axis for axis in manual if axis not in varying_axes(leaf))
        return jax.lax.pcast(leaf, missing, to="varying") if missing else leaf

    return jax.tree.map(cast, tree) if manual else tree


def typed(axes: Axes) -> frozenset[str]:
    """Those of the axes over which types tell what varies: shard_map's, with check_vma=True."""
    return varying_axes(vary(jnp.zeros(()), axes)) & frozenset(axes) if axes else frozenset()


def check_own(name: str, tree: PyTree, axes: Axes) -> None:
    """Raises where a gradient or a loss is known to be summed or averaged over axes already."""
    known = typed(axes)
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        summed = tuple(axis for axis in axes if axis in known - varying_axes(leaf))
        if summed:
            raise ValueError(
                f"{name}{jax.tree_util.keystr(path)} does not vary over {summed}: it is summed or "
                "averaged over them already, by shard_map, which sums the gradient of parameters "
                "that all devices share, or by the loss itself. Either leave axis_name out, if "
                "this is the final gradient; or take the gradient of each device's own loss, at "
                f"jax.lax.pcast(params, {summed}, to='varying')."
            )


def check_sharded(axes: Axes) -> None:
    """Raises where types do not tell which leaves are sharded over an axis."""
    check_mapped("sharded_axis_name", axes)
    unknown = [axis for axis in axes if axis not in typed(axes)]
    if unknown:
        raise ValueError(
            f"sharded_axis_name={unknown}: which parameters are sharded over it is read from "
            "their types, which pmap, vmap and shard_map(check_vma=False) do not have. Use "
            "jax.shard_map with check_vma=True, its default."
        )


def either(perturb: Any, yes: Callable[[], Any], no: Callable[[], Any], axes: Axes) -> Any:
    """yes() or no(), decided while tracing where `perturb` has a value, else by the program."""
    if isinstance(perturb, Tracer):
        differs = tuple(axis for axis in axes if axis in varying_axes(perturb))
        if differs:
            raise ValueError(
                f"perturb varies over {differs}: devices that decide otherwise would wait for each "
                f"other. Decide by what all share, jax.lax.pmean(quantity, {differs}) say."
            )
        return jax.lax.cond(perturb, yes, no)
    return yes() if perturb else no()
