"""The networks: counts of the definitions, shapes, initial values, BatchNorm as torch means it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments import models
from experiments.config.errors import ConfigError
from experiments.models.layers import BatchNorm, conv

COUNTS = {
    "resnet20": 272_474,
    "resnet32": 466_906,
    "resnet56": 855_770,
    "wrn16_8": 10_961_370,
    "wrn28_2": 1_467_610,
    "wrn28_10": 36_479_194,
    "resnext29_32x4d": 4_775_754,
    "densenet121": 6_964_106,
    "vgg19_bn": 20_040_522,
}


pytestmark = pytest.mark.usefixtures("flax_promotes")


def create(name, size=32, channels=3, dtype=jnp.float32):
    return models.create(
        name,
        num_classes=10,
        image_shape=(size, size, channels),
        rngs=nnx.Rngs(0),
        dtype=dtype,
    )


@pytest.mark.parametrize("name", list(COUNTS))
def test_parameter_counts_are_the_definitions(name):
    assert models.parameter_count(name) == COUNTS[name]


@pytest.mark.parametrize("name", ["densenet121", "resnet20", "wrn28_2", "cnn", "mlp"])
def test_every_network_gives_logits(name):
    def forward(images):
        return create(name)(images)

    made = nnx.eval_shape(forward, jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32))
    assert made.shape == (2, 10) and made.dtype == jnp.float32


@pytest.mark.parametrize(
    "name", ["cnn", "resnet8", "wrn16_8", "resnext29_32x4d", "vgg19_bn", "vit"]
)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_computation_in_either_dtype_has_float32_parameters(name, dtype):
    def both(images):
        model = create(name, dtype=dtype)
        return model(images), nnx.state(model, nnx.Param)

    images = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
    logits, params = nnx.eval_shape(both, images)
    assert logits.dtype == dtype
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}


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


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("lenet", 32, "unknown model 'lenet'; the known ones are: densenet121"),
        ("vgg19_bn", 8, "model 'vgg19_bn' needs images of at least"),
    ],
)
def test_what_cannot_be_made_is_refused(name, size, message):
    with pytest.raises(ConfigError, match=message):
        create(name, size=size)
