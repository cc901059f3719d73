"""ResNets for 32x32 images: ResNet, Wide ResNet and ResNeXt.

After homura's `cifar_resnet`, which the authors' script imports: He initialisation by fan-out,
torch's default for the dense layer, and a 1x1 projection wherever a block changes the number of
channels: with BatchNorm in ResNet and ResNeXt, without it in the pre-activation blocks of Wide
ResNet. ResNeXt's stem is 64 channels wide. ResNet-8 is ours, for two cores: its stem halves the
image, too, so that a step takes a quarter of the time.

References:
  He et al. 2016, arXiv 1512.03385 and 1603.05027; Zagoruyko and Komodakis 2016, arXiv 1605.07146;
  Xie et al. 2017, arXiv 1611.05431.
"""

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx

from experiments.models.layers import BatchNorm, conv, linear


class BasicBlock(nnx.Module):
    """relu(BN conv relu BN conv x + shortcut x)."""

    expansion = 1

    def __init__(self, in_features: int, planes: int, stride: int, **kw):
        self.conv1 = conv(in_features, planes, 3, stride, **kw)
        self.norm1 = BatchNorm(planes, **kw)
        self.conv2 = conv(planes, planes, 3, **kw)
        self.norm2 = BatchNorm(planes, **kw)
        if in_features != planes:
            self.shortcut = conv(in_features, planes, 1, stride, **kw)
            self.shortcut_norm = BatchNorm(planes, **kw)

    def __call__(self, x: jax.Array) -> jax.Array:
        y = jax.nn.relu(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        if hasattr(self, "shortcut"):
            x = self.shortcut_norm(self.shortcut(x))
        return jax.nn.relu(y + x)


class PreactBlock(nnx.Module):
    """conv relu BN conv relu BN x + shortcut x."""

    expansion = 1

    def __init__(self, in_features: int, planes: int, stride: int, **kw):
        self.norm1 = BatchNorm(in_features, **kw)
        self.conv1 = conv(in_features, planes, 3, stride, **kw)
        self.norm2 = BatchNorm(planes, **kw)
        self.conv2 = conv(planes, planes, 3, **kw)
        if in_features != planes:
            self.shortcut = conv(in_features, planes, 1, stride, **kw)

    def __call__(self, x: jax.Array) -> jax.Array:
        y = self.conv1(jax.nn.relu(self.norm1(x)))
        y = self.conv2(jax.nn.relu(self.norm2(y)))
        return y + (self.shortcut(x) if hasattr(self, "shortcut") else x)


class Bottleneck(nnx.Module):
    """1x1, 3x3 and 1x1 convolutions, the middle one in 32 groups of 4, 8 and 16 channels."""

    expansion = 4
    groups = 32

    def __init__(self, in_features: int, planes: int, stride: int, **kw):
        width, out = 2 * planes, planes * self.expansion
        self.conv1 = conv(in_features, width, 1, **kw)
        self.norm1 = BatchNorm(width, **kw)
        self.conv2 = conv(width, width, 3, stride, groups=self.groups, **kw)
        self.norm2 = BatchNorm(width, **kw)
        self.conv3 = conv(width, out, 1, **kw)
        self.norm3 = BatchNorm(out, **kw)
        if in_features != out:
            self.shortcut = conv(in_features, out, 1, stride, **kw)
            self.shortcut_norm = BatchNorm(out, **kw)

    def __call__(self, x: jax.Array) -> jax.Array:
        y = jax.nn.relu(self.norm1(self.conv1(x)))
        y = jax.nn.relu(self.norm2(self.conv2(y)))
        y = self.norm3(self.conv3(y))
        if hasattr(self, "shortcut"):
            x = self.shortcut_norm(self.shortcut(x))
        return jax.nn.relu(y + x)


class ResNet(nnx.Module):
    """A 3x3 stem, three stages (the second and third halve the image), mean, dense layer.

    The first stage has `count` blocks of `planes` planes, the second of twice, the third of four
    times as many.
    """

    def __init__(
        self, block, count, num_classes, image_shape, *, stem=16, planes=16, stem_stride=1, **kw
    ):
        self.preact = block is PreactBlock
        self.conv = conv(image_shape[-1], stem, 3, stem_stride, **kw)
        features, blocks = stem, []
        for stage in range(3):
            for index in range(count):
                stride = 2 if stage > 0 and index == 0 else 1
                blocks.append(block(features, planes * 2**stage, stride, **kw))
                features = planes * 2**stage * block.expansion
        self.blocks = nnx.List(blocks)
        self.norm = BatchNorm(features if self.preact else stem, **kw)
        self.dense = linear(features, num_classes, **kw)

    def __call__(self, images_BxHxWxC: jax.Array) -> jax.Array:
        x = self.conv(images_BxHxWxC)
        if not self.preact:
            x = jax.nn.relu(self.norm(x))
        for block in self.blocks:
            x = block(x)
        if self.preact:
            x = jax.nn.relu(self.norm(x))
        return self.dense(jnp.mean(x, axis=(1, 2)))


# Blocks a stage: (depth - 2) / 6 for ResNet, (depth - 4) / 6 for Wide ResNet, (depth - 2) / 9 for
# ResNeXt. Two downsamplings by two.
MODELS = {
    "resnet8": (partial(ResNet, BasicBlock, 1, stem_stride=2), 4),
    "resnet20": (partial(ResNet, BasicBlock, 3), 4),
    "resnet32": (partial(ResNet, BasicBlock, 5), 4),
    "resnet56": (partial(ResNet, BasicBlock, 9), 4),
    "wrn16_8": (partial(ResNet, PreactBlock, 2, planes=128), 4),
    "wrn28_2": (partial(ResNet, PreactBlock, 4, planes=32), 4),
    "wrn28_10": (partial(ResNet, PreactBlock, 4, planes=160), 4),
    "resnext29_32x4d": (partial(ResNet, Bottleneck, 3, stem=64, planes=64), 4),
}
