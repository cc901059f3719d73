"""VGG-19 with BatchNorm, for 32x32 images.

torchvision's `vgg19_bn` up to its last pooling: 3x3 convolutions with bias, He initialisation by
fan-out, biases zero. Its head (7x7 pooling, three dense layers with dropout) is for 224x224 images
and alone has 120 million parameters; on CIFAR one dense layer 512 -> classes takes its place, its
weights normal with standard deviation 0.01 as in torchvision: 20,040,522 parameters for 10 classes.

References:
  Simonyan and Zisserman 2015, arXiv 1409.1556.
"""

import jax
from flax import nnx

from experiments.models.layers import BatchNorm, conv, global_mean, max_pool

SMALLEST_IMAGE = 32  # five downsamplings by two
# Width and number of the convolutions before each pooling.
STAGES = ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4))


class Vgg(nnx.Module):
    def __init__(self, num_classes: int, in_features: int, **kw):
        convs, norms = [], []
        features = in_features
        for width, count in STAGES:
            for _ in range(count):
                convs.append(conv(features, width, 3, use_bias=True, **kw))
                norms.append(BatchNorm(width, **kw))
                features = width
        self.convs, self.norms = nnx.List(convs), nnx.List(norms)
        self.dense = nnx.Linear(
            features, num_classes, kernel_init=nnx.initializers.normal(0.01), **kw
        )

    def __call__(self, images_BxHxWxC: jax.Array) -> jax.Array:
        x = images_BxHxWxC
        layers = iter(zip(self.convs, self.norms, strict=True))
        for _, count in STAGES:
            for _ in range(count):
                conv_layer, norm = next(layers)
                x = jax.nn.relu(norm(conv_layer(x)))
            x = max_pool(x, 2, 2)
        return self.dense(global_mean(x))  # one pixel is left of 32x32


def build(name: str, *, num_classes: int, in_features: int, image_shape, rngs, dtype) -> Vgg:
    del name, image_shape
    return Vgg(num_classes, in_features, rngs=rngs, dtype=dtype)


MODELS = dict.fromkeys(("vgg19_bn",), (build, SMALLEST_IMAGE))
