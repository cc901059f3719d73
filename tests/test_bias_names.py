"""Which names are those of biases: the authors leave T = 1 there, and scale all others."""

import jax
import numpy as np
import pytest

import asam_jax

BIASES = {
    (7,): """bias biases bias_1 bias2 bias_hh bias_hh_l0 in_proj_bias qbias Bias inProjBias dt_bias
        b b1 b_2 b12 bs bq bk bv bo b_q b_Q b_k b_in b_out b_enc bqkv bih b_ih bhh bh by b_n
        fc1_b dense_b ln_1_b offset offset_1 beta beta_0 bn_beta layer_norm_beta shift intercept""",
    (2, 7): "bias biases bias_1 b1 b_2 bq b_q b_in offset beta relative_position_bias_table bias_k",
    (2, 3, 7): "bias q_bias offset beta attn_bias b",
    (7, 1, 1): "bias b",
    (): "bias b b0 beta",
}
OTHERS = {
    (7,): """basis block base bert bottleneck batch_norm unbiased unbiased_x debias bn bn_1 scale
        gamma weight w a B W_B beat betas log_beta swish_beta scale_shift_table shift_net g
        lora_b scale_b w_b b_weight sub rgb emb block_bn""",
    (2, 7): "b B lora_b wq_b kv_b fc1_b weight kernel cls_token b_kernel",
    (2, 3, 7): "w B b_spline b1 kernel",
}
BELOW = [
    (("lora", "b"), (2, 3, 7), True),
    (("LoRA_0", "b"), (2, 3, 7), True),
    (("lora", "linear", "b"), (7,), False),
    (("exploration", "b"), (2, 3, 7), False),
    (("conv1_d", "b"), (7, 1), False),
    (("linear", "b"), (7, 1), True),
    (("bias", "b"), (5, 7), False),
    (("__layer_stack_no_per_layer/linear", "b"), (3, 7), False),
    (("biases", 0), (7,), False),
    (("bs", 1), (7,), False),
    (("biases.0",), (7,), False),
    (("layer.0.bias",), (7,), False),
    (("block", "attn.in_proj_bias"), (7,), False),
    ((("conv", "bias"),), (7,), False),
    (("bias", "real"), (7,), False),
    (("bias_net", "kernel"), (2, 7), True),
    (("b", "kernel"), (2, 7), True),
    (("real",), (7,), True),
    ((0, 1), (7,), True),
    ((), (7,), True),
]


def keys(path):
    return tuple(
        jax.tree_util.SequenceKey(k) if isinstance(k, int) else jax.tree_util.DictKey(k)
        for k in path
    )


CASES = [
    *[((name,), shape, False) for shape, text in BIASES.items() for name in text.split()],
    *[((name,), shape, True) for shape, text in OTHERS.items() for name in text.split()],
    *BELOW,
]


@pytest.mark.parametrize("wrappers", [(), ("value",), ("value", "data_array"), ("real",)])
def test_names(wrappers):
    value = tuple(map(jax.tree_util.GetAttrKey, wrappers))
    wrong = [
        (path, shape)
        for path, shape, scaled in CASES
        if asam_jax.not_bias((*keys(path), *value), np.zeros(shape)) is not scaled
    ]
    assert not wrong
    assert all(asam_jax.all_leaves(keys(path), None) for path, _, _ in CASES)


@pytest.mark.parametrize("leaf", [None, 2.0, jax.ShapeDtypeStruct((), np.float32), object()])
def test_a_leaf_may_be_anything(leaf):
    assert asam_jax.not_bias(keys(("b",)), leaf) is False
    assert asam_jax.not_bias(keys(("w",)), leaf) is True


def test_scales_of_a_plain_network():
    """f18: T = 1 where a bias is, |w| + eta elsewhere, to the last bit of float32."""
    params = {
        "W1": np.full((2, 2), -3.0, np.float32),
        **{name: np.full(2, 5.0, np.float32) for name in ("b1", "bq", "beta")},
        "lora": {"a": np.full((2, 1), 2.0, np.float32), "b": np.full((1, 2), 4.0, np.float32)},
    }
    scales = asam_jax.elementwise(0.5)(params)
    lora = {"a": np.full((2, 1), 2.5), "b": np.full((1, 2), 4.5)}
    expected = {"W1": np.full((2, 2), 3.5), "lora": lora}
    expected |= {name: np.ones(1) for name in ("b1", "bq", "beta")}
    jax.tree.map(np.testing.assert_array_equal, scales, expected)
