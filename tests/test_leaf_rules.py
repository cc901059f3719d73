"""The rules on leaves: what a name and a shape say of biases and of filters."""

import functools

import jax
import numpy as np
import pytest

import asam_jax

VECTOR, MATRIX, STACK = (7,), (2, 7), (2, 3, 7)
BIASES = [
    *[((name,), VECTOR) for name in ["bias", "bias_1", "bias_hh_l0", "in_proj_bias", "dt_bias"]],
    *[
        ((name,), VECTOR)
        for name in ["beta", "offset", "shift", "b", "b1", "b12", "bq", "bk", "b_in", "b_out"]
    ],
    *[((name,), shape) for name in ("bias", "attn_bias") for shape in (MATRIX, STACK, ())],
    (("relative_position_bias_table",), MATRIX),
    (("b",), (7, 1, 1)),
    (("b1",), (1, 7)),
    (("b",), ()),
    (("layer.0.bias",), VECTOR),
    (("block", "attn", "bias"), VECTOR),
    ((0, 1), VECTOR),
    (("b1", 1), VECTOR),
    (("variables", 5), (1, 7)),
]
SCALED = [
    *[((name,), VECTOR) for name in ["scale", "gamma", "weight", "w", "a", "basis", "block"]],
    *[((name,), MATRIX) for name in ["b", "b1", "bq", "b_in", "lora_b", "w", "kernel", "weight"]],
    *[((name,), STACK) for name in ["b", "w", "kernel"]],
    (("bias_net", "kernel"), MATRIX),
    (("b", "kernel"), MATRIX),
    (("lora", "b"), STACK),
    ((0, 0), MATRIX),
    (("b1", 0), MATRIX),
    ((), VECTOR),
]


def keys(path):
    return tuple(
        jax.tree_util.SequenceKey(k) if isinstance(k, int) else jax.tree_util.DictKey(k)
        for k in path
    )


def shaped(shape):
    return jax.ShapeDtypeStruct(shape, np.float32)


def test_which_leaves_are_biases():
    for cases, scaled in ((BIASES, False), (SCALED, True)):
        wrong = [
            (path, shape)
            for path, shape in cases
            if asam_jax.not_bias(keys(path), shaped(shape)) is not scaled
        ]
        assert not wrong, f"scaled should be {scaled} for {wrong}"
        assert all(asam_jax.all_leaves(keys(path), shaped(shape)) for path, shape in cases)


def test_scales_of_a_plain_network():
    """T = 1 where a bias is, |w| + eta elsewhere, to the last bit of float32."""
    full = functools.partial(np.full, dtype=np.float32)
    params = {
        "W1": full((2, 2), -3.0),
        **{name: full(2, 5.0) for name in ("b1", "bq", "beta")},
        "lora": {"a": full((2, 1), 2.0), "b": full((3, 2), 4.0)},
        "layers": [(full((2, 2), -3.0), full(2, 5.0))],
    }
    expected = {
        "W1": np.full((2, 2), 3.5),
        **{name: np.ones(1) for name in ("b1", "bq", "beta")},
        "lora": {"a": np.full((2, 1), 2.5), "b": np.full((3, 2), 4.5)},
        "layers": [(np.full((2, 2), 3.5), np.ones(1))],
    }
    scales = asam_jax.elementwise(0.5, adapt=asam_jax.not_bias)(params)
    jax.tree.map(np.testing.assert_array_equal, scales, expected)


FILTERS = [
    (("stem",), (3, 3, 4, 6)),
    (("w1",), (3, 3, 4, 6)),
    (("DenseBlock_0", "Conv_0", "kernel"), (3, 3, 4, 6)),
    ((0,), (3, 3, 4, 6)),
    ((), (3, 3, 4, 6)),
    (("kernel",), (2, 3, 3, 4, 6)),
    (("conv",), (5, 4, 6)),
    (("conv1d_w",), (5, 4, 6)),
    (("Conv_0", "kernel"), (5, 4, 6)),
    (("attention", "conv", "w"), (5, 4, 6)),
]
NO_FILTERS = [
    (("kernel",), (4, 6)),
    (("Conv_0", "kernel"), (4, 6)),
    (("pos_embedding",), (1, 3, 3, 6)),
    (("embedding",), (2, 8, 9, 6)),
    (("position",), (1, 3, 3, 6)),
    (("layer_scale",), (1, 1, 1, 6)),
    (("bias",), (1, 4, 4, 6)),
    (("kernel",), (5, 4, 6)),
    (("stem", "kernel"), (5, 4, 6)),
    (("norm", "weight"), (6, 4, 4)),
    (("layers", 1, "weight"), (6, 4, 4)),
    (("query", "kernel"), (6, 2, 3)),
    (("experts", "w"), (3, 4, 6)),
    ((0,), (5, 4, 6)),
    ((), (5, 4, 6)),
]


@pytest.mark.parametrize(("cases", "filters"), [(FILTERS, True), (NO_FILTERS, False)])
def test_which_leaves_are_filters(cases, filters):
    for path, shape in cases:
        axes = tuple(range(len(shape)))
        flax = asam_jax.flax_filter_axes(keys(path), shaped(shape))
        torch = asam_jax.torch_filter_axes(keys(path), shaped(shape))
        assert flax == (axes[:-1] if filters else None), (path, shape)
        assert torch == (axes[1:] if filters else None), (path, shape)


def test_transposed_convolutions_of_haiku_have_their_outputs_last_but_one():
    axes = asam_jax.flax_filter_axes
    assert axes(keys(("conv1_d_transpose_1", "w")), shaped((3, 6, 4))) == (0, 2)
    assert axes(keys(("net/~/conv2_d_transpose", "w")), shaped((3, 3, 6, 4))) == (0, 1, 3)
    assert axes(keys(("ConvTranspose_0", "kernel")), shaped((3, 3, 4, 6))) == (0, 1, 2)
