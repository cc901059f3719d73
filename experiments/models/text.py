"""A small causal transformer over bytes, made of the vision transformer's blocks."""

import jax
import jax.numpy as jnp
from flax import nnx

from experiments.models import vit

BYTES = 256


class ByteTransformer(nnx.Module):
    """Byte and position embeddings, blocks, LayerNorm, logits of the next byte."""

    def __init__(self, depth: int, context: int, rngs: nnx.Rngs):
        kw = dict(rngs=rngs, dtype=jnp.float32)
        draw = nnx.initializers.normal(0.02)
        self.embedding = nnx.Param(draw(rngs.params(), (BYTES, vit.WIDTH)))
        self.position_embedding = nnx.Param(draw(rngs.params(), (context, vit.WIDTH)))
        self.blocks = nnx.List([vit.Block(causal=True, **kw) for _ in range(depth)])
        self.norm, self.head = vit.layer_norm(**kw), vit.dense(vit.WIDTH, BYTES, **kw)

    def __call__(self, bytes_BxT: jax.Array) -> jax.Array:
        x = self.embedding[...][bytes_BxT] + self.position_embedding[...][None]
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))
