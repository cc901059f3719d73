"""The networks: their definitions' counts, shapes, initial values, torch's BatchNorm, a ViT."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments import models
from experiments.config.errors import ConfigError
from experiments.models import vit
from experiments.models.layers import BatchNorm, conv

COUNTS = dict(resnet20=272_474, resnet32=466_906, resnet56=855_770, wrn28_2=1_467_610)
COUNTS |= dict(wrn16_8=10_961_370, wrn28_10=36_479_194, resnext29_32x4d=4_775_754)
COUNTS |= dict(densenet121=6_964_106, vgg19_bn=20_040_522)
pytestmark = pytest.mark.usefixtures("flax_promotes")


def create(name, size=32, dtype=jnp.float32):
    shape = dict(num_classes=10, image_shape=(size, size, 3))
    return models.create(name, rngs=nnx.Rngs(0), dtype=dtype, **shape)


@pytest.mark.parametrize("name", models.names())
def test_counts_are_the_definitions_and_bfloat16_has_float32_parameters(name):
    def both(images):
        model = create(name, dtype=jnp.bfloat16)
        return model(images), nnx.state(model, nnx.Param)

    images = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
    logits, params = nnx.eval_shape(both, images)
    assert logits.shape == (2, 10) and logits.dtype == jnp.bfloat16
    leaves = jax.tree.leaves(params)
    assert {leaf.dtype for leaf in leaves} == {jnp.dtype("float32")}
    count = sum(leaf.size for leaf in leaves)
    assert count == models.parameter_count(name) == COUNTS.get(name, count)


def test_he_initialisation_by_fan_out():
    layer = conv(64, 128, 3, rngs=nnx.Rngs(1), dtype=jnp.float32)
    kernel = np.asarray(layer.kernel[...])
    assert layer.bias is None
    np.testing.assert_allclose(kernel.std(), np.sqrt(2 / (9 * 128)), rtol=0.02)
    np.testing.assert_allclose(kernel.mean(), 0, atol=2e-4)


def test_batch_norm_is_torchs():
    layer = BatchNorm(3, rngs=nnx.Rngs(0), dtype=jnp.float32)
    layer.scale[...] = jnp.asarray([1.0, 2.0, 0.5])
    layer.bias[...] = jnp.asarray([0.0, 1.0, -1.0])
    rng = np.random.default_rng(0)
    mean, var = np.zeros(3), np.ones(3)
    for _ in range(3):
        x = rng.normal(2.0, 3.0, size=(4, 5, 5, 3))
        n = 4 * 5 * 5
        batch_mean = x.reshape(n, 3).sum(0) / n
        batch_var = ((x.reshape(n, 3) - batch_mean) ** 2).sum(0) / n
        expected = (x - batch_mean) / np.sqrt(batch_var + 1e-5) * [1, 2, 0.5] + [0, 1, -1]
        np.testing.assert_allclose(layer(jnp.asarray(x, jnp.float32)), expected, atol=1e-4)
        # torch's momentum 0.1 is the weight of the new value; its variance is the unbiased one.
        mean = 0.9 * mean + 0.1 * batch_mean
        var = 0.9 * var + 0.1 * batch_var * n / (n - 1)
    np.testing.assert_allclose(layer.mean[...], mean, rtol=1e-5)
    np.testing.assert_allclose(layer.var[...], var, rtol=1e-5)
    layer.eval()
    x = rng.normal(size=(2, 5, 5, 3))
    expected = (x - mean) / np.sqrt(var + 1e-5) * [1, 2, 0.5] + [0, 1, -1]
    np.testing.assert_allclose(layer(jnp.asarray(x, jnp.float32)), expected, atol=1e-4)
    np.testing.assert_allclose(layer.mean[...], mean, rtol=1e-5)


def test_batch_norm_in_bfloat16_keeps_float32_statistics():
    layer = BatchNorm(2, rngs=nnx.Rngs(0), dtype=jnp.bfloat16)
    x = jnp.asarray(np.random.default_rng(0).normal(100.0, 0.5, size=(512, 2)), jnp.bfloat16)
    assert layer(x).dtype == jnp.bfloat16
    exact = np.asarray(x, np.float64)
    np.testing.assert_allclose(layer.mean[...], 0.1 * exact.mean(0), rtol=1e-5)


def test_too_small_images_are_refused():
    with pytest.raises(ConfigError, match="model 'vgg19_bn' needs images of at least"):
        create("vgg19_bn", size=8)
    with pytest.raises(ConfigError, match="7x9 pixels have no divisor in common"):
        vit.patch_size(7, 9)


@pytest.mark.parametrize(
    ("sides", "patch"), [((32, 32), 4), ((8, 8), 2), ((28, 28), 4), ((16, 8), 2), ((7, 7), 7)]
)
def test_patches_cut_an_image_whole_into_eight_a_side_at_most(sides, patch):
    assert vit.patch_size(*sides) == patch


def test_a_patch_has_its_pixels_row_by_row():
    images = np.arange(2 * 4 * 6 * 3).reshape(2, 4, 6, 3)
    made = np.asarray(vit.cut(jnp.asarray(images), 2))
    assert made.shape == (2, 6, 12)
    for row in range(2):
        for column in range(3):
            patch = images[:, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
            np.testing.assert_array_equal(made[:, 3 * row + column], patch.reshape(2, 12))


def test_attention_is_the_formula_head_by_head():
    block = vit.Block(rngs=nnx.Rngs(0), dtype=jnp.float32)
    x = np.random.default_rng(0).normal(size=(2, 5, vit.WIDTH)).astype(np.float32)
    q, k, v = (np.asarray(layer(x)) for layer in (block.query, block.key, block.value))
    heads = []
    for part in np.split(np.arange(vit.WIDTH), vit.HEADS):
        scores = np.exp(q[..., part] @ k[..., part].swapaxes(1, 2) / len(part) ** 0.5)
        heads.append(scores / scores.sum(-1, keepdims=True) @ v[..., part])
    expected = block.out(jnp.asarray(np.concatenate(heads, -1)))
    np.testing.assert_allclose(block.attention(jnp.asarray(x)), expected, rtol=1e-4, atol=1e-5)


def test_a_transformer_tells_where_a_patch_lies():
    network, images = create("vit", size=8), np.zeros((2, 8, 8, 3), np.float32)
    images[0, :2, :2], images[1, -2:, -2:] = 1.0, 1.0
    logits = network(jnp.asarray(images))
    assert float(jnp.abs(logits[0] - logits[1]).max()) > 1e-4
