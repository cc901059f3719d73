"""The networks that `benchmark compiled` compiles steps of, as shapes with their shardings.

Nothing is computed. Images go through ResNet-20, WRN-28-10 or ViT-B/16, data parallel; tokens go
through a transformer whose parameters are sharded over all chips (FSDP), with remat.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from experiments.benchmarks.problem import IMAGE_SHAPE, base, classifier

AXIS = "chips"


@dataclasses.dataclass(frozen=True)
class Problem:
    """Shapes with their shardings, the loss of them, and the base optimizer."""

    params: Any
    rest: Any  # BatchNorm's statistics
    batch: Any
    loss: Callable[[Any, Any, Any], tuple[jax.Array, Any]]  # (params, rest, batch) -> loss, rest
    base: optax.GradientTransformation
    mesh: Mesh

    @property
    def shard(self) -> float:
        """Bytes of the parameters on a chip."""
        leaves = jax.tree.leaves(self.params)
        return 4.0 * sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) for leaf in leaves)


def _shape(mesh: Mesh, shape: tuple[int, ...], spec: tuple[Any, ...] = (), dtype: Any = None):
    sharding = NamedSharding(mesh, P(*spec))
    return jax.ShapeDtypeStruct(shape, dtype or jnp.float32, sharding=sharding)


def _network(mesh: Mesh, name: str, each: int = 128) -> Problem:
    """A convolutional network on CIFAR's images, so many a chip."""
    loss, params, rest = classifier(name)
    lay = lambda leaf: _shape(mesh, leaf.shape, (), leaf.dtype)  # noqa: E731
    params, rest = jax.tree.map(lay, (params, rest))
    count = each * mesh.size
    images = _shape(mesh, (count, *IMAGE_SHAPE), (AXIS,))
    labels = _shape(mesh, (count,), (AXIS,), jnp.int32)
    return Problem(params, rest, (images, labels), loss, base(), mesh)


def _gathered(mesh: Mesh, weight: jax.Array) -> jax.Array:
    """In bfloat16 and whole on each chip. Without it XLA may gather the batch in its place."""
    if jax.sharding.get_abstract_mesh().manual_axes:  # inside shard_map it is whole
        return weight.astype(jnp.bfloat16)
    return jax.lax.with_sharding_constraint(weight.astype(jnp.bfloat16), NamedSharding(mesh, P()))


def _blocks(mesh: Mesh, params: Any, h_BxTxD: jax.Array, heads: int, causal: bool) -> jax.Array:
    """Pre-norm blocks of attention and two dense layers, in bfloat16, each computed again."""

    def norm(x, scale):
        x = x.astype(jnp.float32)
        mean = jnp.mean(jnp.square(x), -1, keepdims=True)
        return (x * jax.lax.rsqrt(mean + 1e-6) * scale).astype(jnp.bfloat16)

    @jax.checkpoint
    def block(h, w):
        w = {n: x if n.startswith("scale") else _gathered(mesh, x) for n, x in w.items()}
        qkv = (norm(h, w["scale1"]) @ w["qkv"]).reshape(*h.shape[:2], heads, -1)
        mixed = jax.nn.dot_product_attention(*jnp.split(qkv, 3, -1), is_causal=causal)
        h = h + mixed.reshape(h.shape) @ w["out"]
        return h + jax.nn.gelu(norm(h, w["scale2"]) @ w["up"]) @ w["down"], None

    return jax.lax.scan(block, h_BxTxD, params)[0]


def _stack(mesh: Mesh, layers: int, width: int, spec: Any) -> dict[str, Any]:
    shapes = dict(qkv=(width, 3 * width), out=(width, width), up=(width, 4 * width))
    shapes |= dict(down=(4 * width, width))
    stack = {name: _shape(mesh, (layers, *of), (None, spec)) for name, of in shapes.items()}
    return stack | {name: _shape(mesh, (layers, width)) for name in ("scale1", "scale2")}


def _transformer(
    mesh: Mesh, width=2048, heads=16, layers=24, vocabulary=32768, length=1024, each=1
):
    params = dict(embedding=_shape(mesh, (vocabulary, width), (AXIS,)))
    params |= dict(blocks=_stack(mesh, layers, width, AXIS))
    tokens = _shape(mesh, (each * mesh.size, length + 1), (AXIS,), jnp.int32)

    def loss(params, rest, tokens):
        table = _gathered(mesh, params["embedding"])
        h = _blocks(mesh, params["blocks"], table[tokens[:, :-1]], heads, causal=True)
        logits = (h @ table.T).astype(jnp.float32)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:])
        return losses.mean(), rest

    return Problem(params, (), tokens, loss, optax.adamw(1e-3), mesh)


def _vit(mesh: Mesh, width=768, heads=12, layers=12, patch=16, side=224, each=64) -> Problem:
    tokens, pixels = (side // patch) ** 2, 3 * patch**2
    shapes = dict(patches=(pixels, width), position_embedding=(tokens, width), head=(width, 1000))
    params: Any = {name: _shape(mesh, of) for name, of in shapes.items()}
    params |= dict(blocks=_stack(mesh, layers, width, None))
    count = each * mesh.size
    images = _shape(mesh, (count, tokens, pixels), (AXIS,), jnp.bfloat16)
    labels = _shape(mesh, (count,), (AXIS,), jnp.int32)

    def loss(params, rest, batch):
        h = batch[0] @ params["patches"].astype(jnp.bfloat16)
        h = h + params["position_embedding"].astype(jnp.bfloat16)[None]
        logits = _blocks(mesh, params["blocks"], h, heads, causal=False).mean(1) @ params["head"]
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch[1])
        return losses.mean(), rest

    return Problem(params, (), (images, labels), loss, optax.adamw(1e-3), mesh)


def chain(mesh: Mesh, depth: int, width: int = 256, spec: Any = None, dtype: Any = None) -> Problem:
    """Dense layers with norms, three arrays each, which may be sharded or in bfloat16."""
    leaves = {"kernel": (width, width), "bias": (width,), "scale": (width,)}
    leaves = {name: _shape(mesh, of, (spec,), dtype) for name, of in leaves.items()}
    params = {f"layer{i:02d}": dict(leaves) for i in range(depth)}

    def loss(params, rest, x):
        for layer in params.values():
            layer = {name: leaf.astype(x.dtype) for name, leaf in layer.items()}
            x = jax.nn.gelu(x @ layer["kernel"] + layer["bias"][None])
            norm = jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + 1e-6)
            x = x * norm * layer["scale"][None]
        return jnp.mean(jnp.square(x)), rest

    batch = _shape(mesh, (64 * mesh.size, width), (AXIS,))
    return Problem(params, (), batch, loss, base(), mesh)


# By name: what it is, and its shapes on a mesh.
MODELS: dict[str, tuple[str, Callable[[Mesh], Problem]]] = {
    "small": ("four dense layers with norms, 64 rows a chip", lambda mesh: chain(mesh, 4)),
    "resnet20": ("ResNet-20, 128 images a chip", lambda mesh: _network(mesh, "resnet20")),
    "wrn28_10": ("WRN-28-10, 128 images a chip", lambda mesh: _network(mesh, "wrn28_10")),
    "vit_b16": ("ViT-B/16, 64 images a chip, bfloat16, remat", _vit),
    "eps": (
        "two gradients of dense layers and norms, 72 parameter arrays, one chip",
        lambda mesh: chain(mesh, 24),
    ),
    "transformer_1b": (
        "transformer of 1.3 billion parameters, FSDP, remat, bfloat16",
        _transformer,
    ),
}
