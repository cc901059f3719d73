"""Networks of plain layers: VGG-19 with BatchNorm, and two small ones for two cores.

VGG-19 is torchvision's `vgg19_bn` up to its last pooling, for 32x32 images: 3x3 convolutions with
bias, He initialisation by fan-out, biases zero. Its head (7x7 pooling, three dense layers with
dropout) is for 224x224 images and alone has 120 million parameters; on CIFAR one dense layer
512 -> classes takes its place, its weights normal with standard deviation 0.01 as in torchvision:
20,040,522 parameters for 10 classes.

The small ones are ours, made for the digits: large enough to learn wrong labels by heart, which is
what the methods are compared on, and a step takes a few milliseconds.

References:
  Simonyan and Zisserman 2015, arXiv 1409.1556.
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx

from experiments.models.layers import BatchNorm, conv, linear

POOL = 0  # in a list of widths: the largest of each 2x2 window


class Cnn(nnx.Module):
    """3x3 convolutions with BatchNorm (if any) and relu, poolings, mean, dense layer."""

    widths = (16, POOL, 32, 64)
    use_bias, normalized = False, True
    last = staticmethod(linear)  # the dense layer behind the mean

    def __init__(self, num_classes: int, image_shape: tuple[int, int, int], **kw):
        features = image_shape[-1]
        convs, norms = [], []
        for width in filter(None, self.widths):
            convs.append(conv(features, width, 3, use_bias=self.use_bias, **kw))
            norms.append(BatchNorm(width, **kw) if self.normalized else None)
            features = width
        self.convs, self.norms = nnx.List(convs), nnx.List(norms)
        self.dense = self.last(features, num_classes, **kw)

    def __call__(self, images_BxHxWxC: jax.Array) -> jax.Array:
        x = images_BxHxWxC
        layers = zip(self.convs, self.norms, strict=True)
        for width in self.widths:
            if width == POOL:
                x = nnx.max_pool(x, (2, 2), strides=(2, 2))
            else:
                layer, norm = next(layers)
                x = jax.nn.relu(layer(x) if norm is None else norm(layer(x)))
        return self.dense(jnp.mean(x, axis=(1, 2)))


class CnnWithoutNorm(Cnn):
    """The small one with biases in place of BatchNorm."""

    use_bias, normalized = True, False


class Vgg(Cnn):
    """Five stages, each halving the image, of which one pixel is left of 32x32."""

    widths = (64, 64, POOL, 128, 128, POOL, *(256,) * 4, POOL, *(512,) * 4, POOL, *(512,) * 4, POOL)
    use_bias = True
    last = staticmethod(partial(nnx.Linear, kernel_init=nnx.initializers.normal(0.01)))


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


# With the smallest image: as many downsamplings by two as it has poolings.
MODELS = {
    "mlp": (Mlp, 2),
    "cnn": (Cnn, 2),
    "cnn_without_norm": (CnnWithoutNorm, 2),
    "vgg19_bn": (Vgg, 32),
}
