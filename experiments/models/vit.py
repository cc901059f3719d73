"""A small vision transformer (Dosovitskiy et al. 2021) for images of a few thousand pixels.

It is ours, made for two cores: patches of four pixels a side (of two on the digits) through a dense
layer, a learned position embedding, four blocks with LayerNorm in front of attention and of the
dense layers, the mean over patches, no dropout and no convolution.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from experiments.config.errors import ConfigError

WIDTH, DEPTH, HEADS = 64, 4, 4
# The dense layers between attentions are so many times as wide as what they read.
HIDDEN = 2 * WIDTH
# An image is cut into so many patches a side at most.
PATCHES = 8


class Block(nnx.Module):
    """x + attention(norm(x)), and then the same with two dense layers and GELU between them.

    Query, key and value are matrices of their own, (width, width): what counts the axes of a
    kernel to tell a convolution, as Muon and the filters of ASAM do, finds none.
    """

    def __init__(self, *, causal: bool = False, **kw):
        self.causal = causal  # whether no position attends to a later one
        self.norm1, self.norm2 = layer_norm(**kw), layer_norm(**kw)
        self.query, self.key, self.value = (dense(WIDTH, WIDTH, **kw) for _ in range(3))
        self.out = dense(WIDTH, WIDTH, **kw)
        self.up, self.down = dense(WIDTH, HIDDEN, **kw), dense(HIDDEN, WIDTH, **kw)

    def __call__(self, x_BxTxW: jax.Array) -> jax.Array:
        x = x_BxTxW
        x = x + self.attention(self.norm1(x))
        return x + self.down(jax.nn.gelu(self.up(self.norm2(x))))

    def attention(self, x_BxTxW: jax.Array) -> jax.Array:
        heads = (*x_BxTxW.shape[:2], HEADS, WIDTH // HEADS)
        q, k, v = (layer(x_BxTxW).reshape(heads) for layer in (self.query, self.key, self.value))
        mixed = jax.nn.dot_product_attention(q, k, v, is_causal=self.causal)
        return self.out(mixed.reshape(x_BxTxW.shape))


class ViT(nnx.Module):
    """Patches, blocks, mean, dense layer."""

    def __init__(self, num_classes: int, image_shape: tuple[int, int, int], **kw):
        height, width, channels = image_shape
        self.patch = patch_size(height, width)
        tokens = (height // self.patch) * (width // self.patch)
        self.patches = dense(self.patch**2 * channels, WIDTH, **kw)
        self.position_embedding = nnx.Param(
            0.02 * jax.random.normal(kw["rngs"].params(), (tokens, WIDTH), jnp.float32)
        )
        self.blocks = nnx.List([Block(**kw) for _ in range(DEPTH)])
        self.norm = layer_norm(**kw)
        self.head = dense(WIDTH, num_classes, **kw)
        self.dtype = kw["dtype"]

    def __call__(self, images_BxHxWxC: jax.Array) -> jax.Array:
        x = self.patches(cut(images_BxHxWxC, self.patch))
        x = x + self.position_embedding[...].astype(self.dtype)[None]
        for block in self.blocks:
            x = block(x)
        return self.head(jnp.mean(self.norm(x), axis=1))


def patch_size(height: int, width: int) -> int:
    """The smallest side of two pixels or more that cuts both sides whole, into 8 at most."""
    for size in range(max(2, -(-min(height, width) // PATCHES)), min(height, width) + 1):
        if height % size == 0 and width % size == 0:
            return size
    raise ConfigError(
        f"model 'vit' cuts images into square patches, and {height}x{width} pixels have no divisor "
        "in common; choose another model, such as 'cnn'."
    )


def cut(images_BxHxWxC: jax.Array, size: int) -> jax.Array:
    """(batch, patches, numbers of a patch), row by row."""
    batch, height, width, channels = images_BxHxWxC.shape
    rows, columns = height // size, width // size
    x = images_BxHxWxC.reshape(batch, rows, size, columns, size, channels)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, rows * columns, size * size * channels)


def dense(in_features: int, out_features: int, *, rngs: nnx.Rngs, dtype) -> nnx.Linear:
    """A dense layer with the initial values that transformers have: Glorot's, and a bias of 0."""
    init = nnx.initializers.xavier_uniform()
    return nnx.Linear(in_features, out_features, kernel_init=init, dtype=dtype, rngs=rngs)


def layer_norm(*, rngs: nnx.Rngs, dtype) -> nnx.LayerNorm:
    """Statistics in float32, whatever the computation is in."""
    return nnx.LayerNorm(WIDTH, dtype=dtype, rngs=rngs)


MODELS = {"vit": (ViT, 2)}
