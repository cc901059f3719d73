"""A check of the layout that a rule on filters assumes: each filter has its entry in the bias."""

import math
import warnings

import jax
import numpy as np

from asam_jax._checks import PyTree
from asam_jax._names import address
from asam_jax._rules import not_bias


def warn_of_other_layouts(params: PyTree, scales: PyTree) -> None:
    """Warns where the bias next to a convolution's kernel has not one entry for each filter.

    An ordinary convolution's always has. A leaf is taken for a kernel where its scale is smaller.
    A bias of several axes is looked at only where the kernel has axes as long: one with an entry
    for each place of an image says nothing about the filters.
    """
    leaves = jax.tree_util.tree_leaves_with_path(params)
    places = [address(path) for path, _ in leaves]
    biases = {
        place[:-1]: np.shape(leaf)
        for place, (path, leaf) in zip(places, leaves, strict=True)
        if place and place[-1] in ("bias", "b") and not not_bias(path, leaf)
    }
    sizes = [math.prod(np.shape(scale)) for scale in jax.tree.leaves(scales)]
    found = []
    for place, (path, leaf), filters in zip(places, leaves, sizes, strict=True):
        shape, bias = np.shape(leaf), biases.get(place[:-1], ())
        lengths = [n for n in bias if n > 1]
        telling = len(lengths) == 1 or (lengths and set(lengths) <= set(shape))
        if telling and 1 < filters < math.prod(shape) and math.prod(bias) != filters:
            found.append(
                f"params{jax.tree_util.keystr(path)} of shape {shape} for a convolution with "
                f"{filters} filters, but the bias beside it has shape {bias}"
            )
    if found:
        others = f" ({len(found) - 1} more like it)" if len(found) > 1 else ""
        warnings.warn(
            f"filterwise takes {found[0]}{others}. If layers are stacked in it, say so by "
            "layer_axes; if it is transposed, has another layout or is no convolution, by "
            "filter_axes; see `asam_jax.filterwise`.",
            stacklevel=2,
        )
