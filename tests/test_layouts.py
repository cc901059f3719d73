"""What a filter is in the layers of each library: the weights that one output channel needs."""

import functools

import equinox as eqx
import haiku as hk
import jax
import numpy as np
import pytest
from flax import linen, nnx

import asam_jax

IMAGE, SERIES = (1, 4, 4, 4), (1, 5, 4)
KEY = jax.random.key(0)


def drawn(shapes):
    """Parameters without what it takes to compile their initializers."""
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda s: rng.normal(size=s.shape).astype(np.float32), shapes)


def of_linen(layer, x):
    return drawn(jax.eval_shape(layer.init, KEY, x)), layer.apply


def of_nnx(make, x):
    graph, params = nnx.split(nnx.eval_shape(lambda: make(nnx.Rngs(0))), nnx.Param)
    return drawn(params), lambda p, x: nnx.merge(graph, p)(x)


def of_haiku(make, x):
    net = hk.without_apply_rng(hk.transform(lambda x: make()(x)))
    return drawn(jax.eval_shape(net.init, KEY, x)), net.apply


def of_equinox(make, x):
    is_shape = lambda leaf: isinstance(leaf, jax.ShapeDtypeStruct)  # noqa: E731
    params, static = eqx.partition(eqx.filter_eval_shape(make, key=KEY), is_shape)
    return drawn(params), lambda p, x: jax.vmap(eqx.combine(p, static))(x)


def transposed_kernel(path, leaf):
    axes = asam_jax.flax_filter_axes(path, leaf)
    return axes and (*axes[:-1], axes[-1] + 1)


torch = functools.partial(asam_jax.filterwise, filter_axes=asam_jax.torch_filter_axes)
last_but_one = functools.partial(asam_jax.filterwise, filter_axes=transposed_kernel)
LAYERS = {
    "linen, grouped": (of_linen, linen.Conv(6, (3, 3), feature_group_count=2), {}),
    "linen transposed": (of_linen, linen.ConvTranspose(6, (3, 3)), {}),
    "nnx transposed kernel": (
        of_nnx,
        lambda r: nnx.ConvTranspose(4, 6, (3, 3), transpose_kernel=True, rngs=r),
        {"operator": last_but_one},
    ),
    "haiku depthwise": (of_haiku, lambda: hk.DepthwiseConv2D(2, 3), {}),
    "haiku transposed": (of_haiku, lambda: hk.Conv2DTranspose(6, 3), {}),
    "haiku transposed, 1d, channels first": (
        of_haiku,
        lambda: hk.Conv1DTranspose(6, 3, data_format="NCW"),
        {"shape": SERIES, "channel": 1},
    ),
    "equinox": (
        of_equinox,
        functools.partial(eqx.nn.Conv2d, 4, 6, 3),
        {"operator": torch, "channel": 1},
    ),
    "equinox transposed, grouped": (
        of_equinox,
        functools.partial(eqx.nn.ConvTranspose2d, 4, 6, 3, groups=2),
        {"operator": torch, "channel": 1},
    ),
}


@pytest.mark.usefixtures("flax_promotes")
@pytest.mark.parametrize("name", LAYERS)
def test_a_filter_is_what_one_output_channel_needs(name):
    """NaN in one slice of the kernel reaches one output channel along the outputs' axis alone."""
    make, layer, told = LAYERS[name]
    x = np.ones(told.get("shape", IMAGE), np.float32)
    params, apply = make(layer, x)
    leaves, treedef = jax.tree.flatten(params)
    at = int(np.argmax([w.size for w in leaves]))
    kernel, run = np.asarray(leaves[at]), jax.jit(apply)

    def reached(axis):
        broken = np.moveaxis(kernel.copy(), axis, 0)
        broken[0] = np.nan
        with_nan = [*leaves[:at], np.moveaxis(broken, 0, axis), *leaves[at + 1 :]]
        y = run(jax.tree.unflatten(treedef, with_nan), x)
        y = np.moveaxis(np.isnan(y), told.get("channel", -1), 0)
        return y.reshape(y.shape[0], -1).any(axis=1).sum()

    (out,) = (axis for axis in range(kernel.ndim) if reached(axis) == 1)
    rest = tuple(axis for axis in range(kernel.ndim) if axis != out)
    norms = np.sqrt(np.sum(np.square(kernel, dtype=np.float64), axis=rest, keepdims=True))
    operator = told.get("operator", asam_jax.filterwise)(adapt=asam_jax.not_bias)
    scales = jax.tree.leaves(operator(params))
    np.testing.assert_allclose(scales.pop(at), norms, rtol=1e-6)
    assert [float(t.sum()) for t in scales] == [1.0]  # the bias
