"""Averages over mapped axes, and the axis types of shard_map."""

import jax
import jax.numpy as jnp

from asam_jax._checks import PyTree

AxisName = str | int | tuple[str | int, ...] | list[str | int] | None
"""One mapped axis, several, or none, as `jax.pmap`, `jax.vmap` and `jax.shard_map` name them."""


def axes(axis_name: AxisName) -> tuple[str | int, ...]:
    """An axis name, several, or none, as a tuple."""
    if axis_name is None:
        return ()
    return tuple(axis_name) if isinstance(axis_name, (tuple, list)) else (axis_name,)


def check_axes(axis_name: AxisName, perturb_axis_name: AxisName) -> None:
    """Raises where the gradient of eps would be averaged over an axis that the result is not."""
    extra = list(without(perturb_axis_name, axis_name))
    if extra:
        raise ValueError(
            f"perturb_axis_name holds {extra}, which axis_name={axis_name!r} does not: eps can be "
            "shared over the axes that the result is averaged over, all or some of them; add "
            f"{extra} to axis_name."
        )


def check_mapped(axis_name: AxisName) -> None:
    """Raises where an axis is not mapped by pmap, shard_map or vmap around this call."""
    for axis in axes(axis_name):
        try:
            jax.lax.axis_index(axis)
        except NameError as error:
            raise ValueError(
                f"axis_name: {axis!r} is not a mapped axis here; call inside jax.pmap(..., "
                f"axis_name={axis!r}), jax.vmap(..., axis_name={axis!r}) or jax.shard_map over a "
                "mesh with that axis, or leave axis_name out."
            ) from error


def mean(tree: PyTree, axis_name: AxisName) -> PyTree:
    """The mean of a tree over mapped axes; the tree itself where there are none."""
    return jax.lax.pmean(tree, axes(axis_name)) if axes(axis_name) else tree


def without(axis_name: AxisName, others: AxisName) -> tuple[str | int, ...]:
    """Those axes that are not among the others."""
    return tuple(a for a in axes(axis_name) if a not in axes(others))


def varying(tree: PyTree, axis_name: AxisName) -> PyTree:
    """Marks the leaves as differing between the devices of manual axes.

    Under `shard_map(check_vma=True)` the gradient with respect to a value that is the same on
    all devices arrives already summed over them. A gradient of each device's own batch needs
    parameters of varying type. Elsewhere (pmap, vmap, check_vma=False) there is nothing to mark.
    """
    manual = [a for a in axes(axis_name) if a in jax.sharding.get_abstract_mesh().manual_axes]
    if not manual:
        return tree

    def mark(leaf: jax.Array) -> jax.Array:
        missing = tuple(a for a in manual if a not in jax.typeof(leaf).manual_axis_type.varying)
        return jax.lax.pcast(leaf, missing, to="varying") if missing else leaf

    return jax.tree.map(mark, tree)


def check_local(grads: PyTree, axis_name: AxisName, perturb_axis_name: AxisName) -> None:
    """Raises where eps should be a device's own, but the gradient is known to be shared.

    Only `shard_map(check_vma=True)` knows; there a mark on a scalar shows that it is in force.
    """
    own = without(axis_name, perturb_axis_name)
    probe = jax.tree.leaves(varying(jnp.zeros(()), own))[0]
    checked = jax.typeof(probe).manual_axis_type.varying if own else frozenset()
    for path, leaf in jax.tree_util.tree_leaves_with_path(grads):
        shared = [a for a in checked if a not in jax.typeof(leaf).manual_axis_type.varying]
        if shared:
            raise ValueError(
                f"updates{jax.tree_util.keystr(path)} is the same on all devices of {shared}, so "
                "it cannot give each device its own eps. Take the gradient at jax.lax.pcast("
                f"params, {tuple(shared)}, to='varying'), or ask for one eps for all by "
                f"perturb_axis_name={axis_name!r}."
            )
