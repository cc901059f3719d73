"""w = s * theta with one factor s a leaf or a node, all fixed before the training.

Training is in theta. SGD's gradient is divided by s^2, its weight decay is not: so SGD in w is the
same for every s. SAM in theta perturbs within another region of w, which is T_w = s.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

AS_IS = "as is"
_LAYER = 4.0  # one layer so many times, the next so many times less
_NODE = 8.0  # from 1 / so much to so much, evenly in the logarithm


def factors(name: str, params: Any) -> Any:
    """s, a number for each leaf (an array along its last axis for "node"); 1 everywhere as is.

    ntk: sqrt(2 / fan in) for kernels. layer: 4 for a layer with a kernel and 1/4 for the next.
    node: a draw for each output of a layer with a kernel. Layers without one (norms) have 1.
    """
    paths = jax.tree_util.tree_leaves_with_path(params)
    layers = {path[:-2]: None for path, leaf in paths if leaf.ndim > 1}
    order = {layer: number for number, layer in enumerate(layers)}

    def factor(path, leaf):
        number, s = order.get(path[:-2]), np.float32(1)
        if number is not None and name == "ntk" and leaf.ndim > 1:
            s = (2 * leaf.shape[-1] / leaf.size) ** 0.5
        if number is not None and name == "layer":
            s = _LAYER if number % 2 == 0 else 1 / _LAYER
        if number is not None and name == "node":
            drawn = np.random.default_rng(number).uniform(-1, 1, leaf.shape[-1])
            s = (_NODE**drawn).reshape([1] * (leaf.ndim - 1) + [-1])
        return jnp.asarray(s, leaf.dtype)

    return jax.tree_util.tree_map_with_path(factor, params)


def weights(name: str, theta: Any) -> Any:
    """W of theta."""
    return theta if name == AS_IS else jax.tree.map(jnp.multiply, theta, factors(name, theta))


def over(name: str, tree: Any, power: int) -> Any:
    """The tree over s^power: theta of w with 1; with 2, the gradient by which SGD is unchanged."""
    if name == AS_IS:
        return tree
    return jax.tree.map(lambda t, s: t / s**power, tree, factors(name, tree))
