"""Two small networks for two cores: a convolutional one and one of dense layers alone.

They are ours, made for the digits: large enough to learn wrong labels by heart, which is what the
methods are compared on, and a step takes a few milliseconds.
"""

import math

import jax
from flax import nnx

from experiments.models.layers import BatchNorm, conv, global_mean, linear, max_pool

SMALLEST_IMAGE = 2  # the convolutional one's pooling


class Cnn(nnx.Module):
    """Three 3x3 convolutions, BatchNorm if any, relu, halved after the first, mean, dense layer."""

    widths = (16, 32, 64)

    def __init__(self, num_classes: int, in_features: int, norm: bool, **kw):
        convs, norms = [], []
        for out in self.widths:
            convs.append(conv(in_features, out, 3, use_bias=not norm, **kw))
            norms += [BatchNorm(out, **kw)] * norm
            in_features = out
        self.convs, self.norms = nnx.List(convs), nnx.List(norms)
        self.dense = linear(in_features, num_classes, **kw)

    def __call__(self, images_BxHxWxC: jax.Array) -> jax.Array:
        x = images_BxHxWxC
        for index, layer in enumerate(self.convs):
            x = layer(x)
            x = jax.nn.relu(self.norms[index](x) if self.norms else x)
            if index == 0:
                x = max_pool(x, 2, 2)
        return self.dense(global_mean(x))


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
    if name != "mlp":
        return Cnn(num_classes, in_features, norm=name == "cnn", rngs=rngs, dtype=dtype)
    return Mlp(num_classes, image_shape, rngs=rngs, dtype=dtype)


MODELS = dict.fromkeys(("mlp", "cnn", "cnn_without_norm"), (build, SMALLEST_IMAGE))
