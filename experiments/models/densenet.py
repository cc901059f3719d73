"""DenseNet-121.

torchvision's `densenet121` with another number of classes, the stem for 224x224 images included
(7x7 convolution and pooling, each halving the image): 6,964,106 parameters for 10 classes. He
initialisation by fan-in; the dense layer has torch's default weights and a bias of zero.

References:
  Huang et al. 2017, arXiv 1608.06993.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from experiments.models.layers import BatchNorm, conv, he_fan_in, linear

GROWTH = 32
BOTTLENECK = 4 * GROWTH
STEM = 64
LAYERS = (6, 12, 24, 16)
PADDED: Any = ((1, 1), (1, 1))  # flax declares too little


class DenseLayer(nnx.Module):
    """GROWTH new channels from all those before."""

    def __init__(self, in_features: int, **kw):
        self.norm1 = BatchNorm(in_features, **kw)
        self.conv1 = conv(in_features, BOTTLENECK, 1, init=he_fan_in, **kw)
        self.norm2 = BatchNorm(BOTTLENECK, **kw)
        self.conv2 = conv(BOTTLENECK, GROWTH, 3, init=he_fan_in, **kw)

    def __call__(self, x: jax.Array) -> jax.Array:
        y = self.conv1(jax.nn.relu(self.norm1(x)))
        y = self.conv2(jax.nn.relu(self.norm2(y)))
        return jnp.concatenate([x, y], axis=-1)


class Transition(nnx.Module):
    """Half the channels, half the image."""

    def __init__(self, in_features: int, **kw):
        self.norm = BatchNorm(in_features, **kw)
        self.conv = conv(in_features, in_features // 2, 1, init=he_fan_in, **kw)

    def __call__(self, x: jax.Array) -> jax.Array:
        return nnx.avg_pool(self.conv(jax.nn.relu(self.norm(x))), (2, 2), strides=(2, 2))


class DenseNet(nnx.Module):
    def __init__(self, num_classes: int, image_shape: tuple[int, int, int], **kw):
        self.conv = conv(image_shape[-1], STEM, 7, 2, init=he_fan_in, **kw)
        self.norm = BatchNorm(STEM, **kw)
        features = STEM
        layers = []
        for block, count in enumerate(LAYERS):
            if block > 0:
                layers.append(Transition(features, **kw))
                features //= 2
            for _ in range(count):
                layers.append(DenseLayer(features, **kw))
                features += GROWTH
        self.layers = nnx.List(layers)
        self.last_norm = BatchNorm(features, **kw)
        self.dense = linear(features, num_classes, zero_bias=True, **kw)

    def __call__(self, images_BxHxWxC: jax.Array) -> jax.Array:
        x = jax.nn.relu(self.norm(self.conv(images_BxHxWxC)))
        x = nnx.max_pool(x, (3, 3), strides=(2, 2), padding=PADDED)
        for layer in self.layers:
            x = layer(x)
        return self.dense(jnp.mean(jax.nn.relu(self.last_norm(x)), axis=(1, 2)))


MODELS = {"densenet121": (DenseNet, 32)}  # five downsamplings by two
