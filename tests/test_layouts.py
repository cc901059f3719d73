"""What a filter is in the layers of each library: the weights that one output channel needs."""

import functools

import equinox as eqx
import haiku as hk
import jax
import jax.numpy as jnp
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
    "linen, 1d, grouped": (
        of_linen,
        linen.Conv(6, (3,), feature_group_count=2),
        {"shape": SERIES},
    ),
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
    scales = jax.tree.leaves(told.get("operator", asam_jax.filterwise)(0.0)(params))
    np.testing.assert_allclose(scales.pop(at), norms, rtol=1e-6)
    assert [float(t.sum()) for t in scales] == [1.0]  # the bias


OUT = ("kernel", "w", "weight", "conv1_w", "conv", "kernel_2")
FILTERS = [
    *[((name,), (5, 4, 6), True) for name in OUT],
    ((), (5, 4, 6), True),
    ((0, 1), (5, 4, 6), True),
    (("stem", "kernel"), (5, 4, 6), True),
    (("stem",), (3, 3, 4, 6), True),
    (("w1",), (3, 3, 4, 6), True),
    (("patch_embed",), (4, 4, 3, 6), True),
    (("DenseBlock_0", "Conv_0", "kernel"), (3, 3, 4, 6), True),
    (("attention", "conv", "w"), (5, 4, 6), True),
    (("attn", "spatial", "kernel"), (7, 7, 2, 1), True),
    (("experts", "conv", "kernel"), (3, 4, 6), True),
    (("kernel",), (4, 6), False),
    (("pos_embedding",), (1, 9, 6), False),
    (("pos_embed",), (1, 3, 3, 6), False),
    (("encoder", "posembed_input", "pos_embedding"), (1, 9, 6), False),
    (("cls_token",), (1, 1, 6), False),
    (("cls",), (1, 1, 6), False),
    (("latents",), (1, 9, 6), False),
    (("query_tokens",), (1, 9, 6), False),
    (("layer_scale", "gamma"), (1, 1, 1, 6), False),
    (("batch_norm", "scale"), (1, 1, 6), False),
    (("norm", "weight"), (6, 4, 4), False),
    (("relative_position_bias_table",), (2, 9, 6), False),
    (("bias", "b"), (4, 4, 6), False),
    (("conv2_d", "b"), (6, 1, 1), False),
    (("embedding",), (8, 9, 6), False),
    (("MultiHeadDotProductAttention_0", "query", "kernel"), (6, 2, 3), False),
    (("MultiHeadDotProductAttention_0", "out", "kernel"), (2, 3, 6), False),
    (("attn", "proj", "kernel"), (2, 3, 6), False),
    (("sa", "out", "kernel"), (2, 3, 6), False),
    (("out_conv", "kernel"), (2, 3, 6), True),
    (("qkv", "kernel"), (6, 2, 9), False),
    (("DenseGeneral_0", "kernel"), (6, 3, 2, 3), False),
    (("Dense_0", "kernel"), (3, 4, 6), False),
    (("linear_1", "w"), (3, 4, 6), False),
    (("q_einsum", "w"), (2, 6, 3), False),
    (("moe", "wi", "kernel"), (8, 4, 6), False),
    (("block", "wi"), (8, 4, 6), False),
]


def keys(path):
    return tuple(
        jax.tree_util.SequenceKey(k) if isinstance(k, int) else jax.tree_util.DictKey(k)
        for k in path
    )


@pytest.mark.parametrize(("path", "shape", "is_filter"), FILTERS)
def test_which_leaves_are_filters(path, shape, is_filter):
    leaf = jax.ShapeDtypeStruct(shape, jnp.float32)
    flax, torch = (asam_jax.flax_filter_axes, asam_jax.torch_filter_axes)
    axes = tuple(range(len(shape)))
    assert flax(keys(path), leaf) == (axes[:-1] if is_filter else None)
    assert torch(keys(path), leaf) == (axes[1:] if is_filter else None)


def test_layers_with_axes_of_their_own():
    axes = asam_jax.flax_filter_axes
    leaf = functools.partial(np.zeros, dtype=np.float32)
    assert axes(keys(("sepconv", "depthwise_kernel")), leaf((3, 3, 4, 2))) == (0, 1)
    assert axes(keys(("depthwise_conv2d_1", "kernel")), leaf((3, 3, 4, 2))) == (0, 1)
    assert axes(keys(("ConvLocal_0", "kernel")), leaf((6, 6, 36, 6))) == (2,)
    for name in ("conv1_d_transpose_1", "net/~/conv_nd_transpose"):
        assert axes(keys((name, "w")), leaf((3, 6, 4))) == (0, 2)
    assert axes(keys(("ConvTranspose_0", "kernel")), leaf((3, 3, 4, 6))) == (0, 1, 2)
