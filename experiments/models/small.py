"""Two small networks for two cores: a convolutional one and one of dense layers alone.

They are ours, made for the digits: large enough to learn wrong labels by heart, which is what the
methods are compared on, and a step takes a few milliseconds. No BatchNorm: its noise would stand
between the methods.
"""

import math

import jax
from flax import nnx

from experiments.models.layers import conv, linear, max_pool

SMALLEST_IMAGE = 4  # the convolutional one's two poolings


class Cnn(nnx.Module):
    """Three 3x3 convolutions with relu, poolings after the first and the second, a dense layer."""

    widths = (16, 32, 64)

    def __init__(self, num_classes: int, image_shape: tuple[int, int, int], **kw):
        height, width, features = image_shape
        convs = []
        for out in self.widths:
            convs.append(conv(features, out, 3, use_bias=True, **kw))
            features = out
        self.convs = nnx.List(convs)
        self.dense = linear((height // 4) * (width // 4) * features, num_classes, **kw)

    def __call__(self, images_BxHxWxC: jax.Array) -> jax.Array:
        x = images_BxHxWxC
        for layer in self.convs[:-1]:
            x = max_pool(jax.nn.relu(layer(x)), 2, 2)
        x = jax.nn.relu(self.convs[-1](x))
        return self.dense(x.reshape(x.shape[0], -1))


class Mlp(nnx.Module):
    """Two hidden layers of 128 units on the image's pixels."""

    widths = (128, 128)

    def __init__(self, num_classes: int, image_shape: tuple[int, int, int], **kw):
        features = math.prod(image_shape)
        layers = []
        for out in (*self.widths, num_classes):
            layers.append(linear(features, out, **kw))
            features = out
        self.layers = nnx.List(layers)

    def __call__(self, images_BxHxWxC: jax.Array) -> jax.Array:
        x = images_BxHxWxC.reshape(images_BxHxWxC.shape[0], -1)
        for layer in self.layers[:-1]:
            x = jax.nn.relu(layer(x))
        return self.layers[-1](x)


def build(name: str, *, num_classes: int, in_features: int, image_shape, rngs, dtype):
    del in_features
    network = {"cnn": Cnn, "mlp": Mlp}[name]
    return network(num_classes, image_shape, rngs=rngs, dtype=dtype)
