"""The steps that `benchmark compiled` compiles: networks as shapes, and variants of a step.

Nothing is computed. Images go through ResNet-20, WRN-28-10 or ViT-B/16, data parallel; tokens go
through a transformer whose parameters are sharded over all chips (FSDP), with remat.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import asam_jax
from experiments import models

AXIS, RHO = "chips", 0.5


@dataclasses.dataclass(frozen=True)
class Problem:
    """Shapes with their shardings, the loss of them, and the base optimizer."""

    params: Any
    rest: Any  # BatchNorm's statistics
    batch: Any
    loss: Callable[[Any, Any, Any], tuple[jax.Array, Any]]  # (params, rest, batch) -> loss, rest
    base: optax.GradientTransformation
    mesh: Mesh
    sharded: bool = False  # whether parameters are

    @property
    def shard(self) -> float:
        """Bytes of the parameters on a chip."""
        shapes = [leaf.sharding.shard_shape(leaf.shape) for leaf in jax.tree.leaves(self.params)]
        return 4.0 * sum(jax.ShapeDtypeStruct(shape, jnp.float32).size for shape in shapes)


def _shape(mesh: Mesh, shape: tuple[int, ...], spec: tuple[Any, ...] = (), dtype: Any = None):
    sharding = NamedSharding(mesh, P(*spec))
    return jax.ShapeDtypeStruct(shape, dtype or jnp.float32, sharding=sharding)


def _network(mesh: Mesh, name: str, each: int = 128) -> Problem:
    """A convolutional network on CIFAR's images, so many a chip."""
    how: dict[str, Any] = dict(num_classes=10, image_shape=(32, 32, 3), dtype=jnp.float32)
    network = nnx.eval_shape(lambda: models.create(name, rngs=nnx.Rngs(0), **how))
    network.train()
    graphdef, params, rest = nnx.split(network, nnx.Param, ...)
    lay = lambda leaf: _shape(mesh, leaf.shape, (), leaf.dtype)  # noqa: E731
    count = each * mesh.size
    images = _shape(mesh, (count, 32, 32, 3), (AXIS,))
    labels = _shape(mesh, (count,), (AXIS,), jnp.int32)

    def loss(params, rest, batch):
        net = nnx.merge(graphdef, params, rest, copy=True)
        losses = optax.softmax_cross_entropy_with_integer_labels(net(batch[0]), batch[1])
        return jnp.mean(losses), nnx.split(net, nnx.Param, ...)[2]

    base = optax.chain(optax.add_decayed_weights(5e-4), optax.sgd(0.1, momentum=0.9))
    params, rest = jax.tree.map(lay, (params, rest))
    return Problem(params, rest, (images, labels), loss, base, mesh)


def _blocks(params: Any, h_BxTxD: jax.Array, heads: int, causal: bool) -> jax.Array:
    """Pre-norm blocks of attention and two dense layers, in bfloat16, each computed again."""

    def norm(x, scale):
        x = x.astype(jnp.float32)
        mean = jnp.mean(jnp.square(x), -1, keepdims=True)
        return (x * jax.lax.rsqrt(mean + 1e-6) * scale).astype(jnp.bfloat16)

    @jax.checkpoint
    def block(h, w):
        w = {n: x if n.startswith("scale") else x.astype(jnp.bfloat16) for n, x in w.items()}
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
        table = params["embedding"].astype(jnp.bfloat16)
        h = _blocks(params["blocks"], table[tokens[:, :-1]], heads, causal=True)
        logits = (h @ table.T).astype(jnp.float32)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:])
        return losses.mean(), rest

    return Problem(params, (), tokens, loss, optax.adamw(1e-3), mesh, sharded=True)


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
        logits = _blocks(params["blocks"], h, heads, causal=False).mean(1) @ params["head"]
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch[1])
        return losses.mean(), rest

    return Problem(params, (), (images, labels), loss, optax.adamw(1e-3), mesh)


def _small(mesh: Mesh) -> Problem:
    """Dense layers, what a test has time for."""
    leaves = {"kernel": _shape(mesh, (256, 256)), "bias": _shape(mesh, (256,))}
    params = {f"layer{i}": dict(leaves) for i in range(4)}

    def loss(params, rest, x):
        for layer in params.values():
            x = jnp.tanh(x @ layer["kernel"] + layer["bias"])
        return jnp.mean(jnp.square(x)), rest

    batch = _shape(mesh, (64 * mesh.size, 256), (AXIS,))
    return Problem(params, (), batch, loss, optax.sgd(0.1, momentum=0.9), mesh)


def _chain(mesh: Mesh, depth: int = 24, width: int = 256) -> Problem:
    """What kernels of eps are counted on: 72 arrays on one chip."""
    leaves = {"kernel": _shape(mesh, (width, width))}
    leaves |= {name: _shape(mesh, (width,)) for name in ("bias", "scale")}
    params = {f"layer{i:02d}": dict(leaves) for i in range(depth)}

    def loss(params, rest, x):
        for layer in params.values():
            x = jax.nn.gelu(x @ layer["kernel"] + layer["bias"])
            x = x * jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + 1e-6) * layer["scale"]
        return jnp.mean(jnp.square(x)), rest

    return Problem(params, (), _shape(mesh, (64, width)), loss, optax.identity(), mesh)


# By name: what it is, and its shapes on a mesh.
MODELS: dict[str, tuple[str, Callable[[Mesh], Problem]]] = {
    "small": ("four dense layers, 64 rows a chip", _small),
    "resnet20": ("ResNet-20, 128 images a chip", lambda mesh: _network(mesh, "resnet20")),
    "wrn28_10": ("WRN-28-10, 128 images a chip", lambda mesh: _network(mesh, "wrn28_10")),
    "vit_b16": ("ViT-B/16, 64 images a chip, bfloat16, remat", _vit),
    "transformer_small": (
        "transformer of 17 million parameters, FSDP, remat, bfloat16",
        lambda mesh: _transformer(mesh, 512, 8, 4, 8192, 256),
    ),
    "eps": ("two gradients of dense layers and norms, 72 parameter arrays, one chip", _chain),
    "transformer_1b": (
        "transformer of 1.3 billion parameters, FSDP, remat, bfloat16",
        _transformer,
    ),
}


def own_first(batch: Any, mesh: Mesh, share: int) -> Any:
    """One nth of a batch that is sharded over devices: each device's own first examples.

    `batch[:n]` would lie on the first devices alone, and XLA would spread it over all again.
    """

    def of(x: jax.Array) -> jax.Array:
        each = x.shape[0] // mesh.size
        x = x.reshape(mesh.size, each, *x.shape[1:])[:, : max(each // share, 1)]
        return jax.lax.with_sharding_constraint(
            x.reshape(-1, *x.shape[2:]), NamedSharding(mesh, P(AXIS))
        )

    return jax.tree.map(of, batch)


def _rules() -> dict[str, Callable[[optax.GradientTransformation], Any]]:
    rule = lambda **how: lambda base: asam_jax.asam(base, RHO, **how)  # noqa: E731
    return {
        "exact": rule(),
        "own eps": rule(axis_name=AXIS),
        "every 4": rule(every=4),
        "subset": rule(),
        "friendly": rule(ascent=asam_jax.friendly_ascent()),
        "gsam": rule(descent=asam_jax.gsam_descent(0.3)),
        "wsam": rule(descent=asam_jax.wsam_descent(0.7)),
        "stable": rule(descent=asam_jax.stable_descent()),
        "looksam": rule(every=4, descent=asam_jax.looksam_descent(0.7)),
        "decoupled": lambda base: asam_jax.decoupled_wsam(base, 1e-3, RHO),
        "alternating, 1st": lambda base: asam_jax.alternating(base, RHO),
        "alternating, 2nd": lambda base: asam_jax.alternating(base, RHO),
        "optax.contrib.sam": lambda base: optax.contrib.sam(
            base, optax.chain(optax.contrib.normalize(), optax.sgd(0.05)), opaque_mode=True
        ),
    }


VARIANTS = ("base", "optax.contrib.sam", "exact", "own eps", "every 4", "subset", "momentum")
VARIANTS += ("friendly", "gsam", "wsam", "stable", "looksam", "decoupled")
VARIANTS += ("alternating, 1st", "alternating, 2nd")
GRADIENTS = ("two gradients", "plain formula", "eps")


def variants_of(model: str) -> tuple[str, ...]:
    """What is compiled of a model; where parameters are sharded, eps cannot be each device's."""
    if model == "eps":
        return GRADIENTS
    sharded = model.startswith("transformer")
    return tuple(name for name in VARIANTS if not (sharded and name == "own eps"))


def _gradients(given: Problem, name: str) -> Callable[..., Any]:
    """What eps adds to two gradients, as it is here and as a reader of the paper would write it."""

    def one(params, rest, others, batch):
        grad = jax.value_and_grad(lambda at: given.loss(at, rest, batch)[0])
        value, g = grad(params)
        if name == "two gradients":
            return value, g, grad(others)[1]
        if name == "eps":
            eps = asam_jax.perturbation(params, g, rho=RHO)
        else:
            t = asam_jax.elementwise()(params)
            norm = optax.tree.norm(jax.tree.map(jnp.multiply, t, g))
            eps = jax.tree.map(lambda t, g: RHO * t * t * g / norm, t, g)
        return value, grad(jax.tree.map(jnp.add, params, eps))[1]

    return one


def step(given: Problem, name: str) -> tuple[Callable[..., Any], Any]:
    """A step (params, rest, opt_state, batch) -> the first three, and the optimizer's state."""
    if name in GRADIENTS:
        return _gradients(given, name), given.params
    tx = optax.with_extra_args_support(_rules().get(name, lambda base: base)(given.base))

    def one(params, rest, state, batch):
        def grad_fn(at, _=None, batch=batch):
            return jax.grad(given.loss, has_aux=True)(at, rest, batch)[0]

        at, extra = params, {}
        if name == "momentum":
            at = asam_jax.momentum_ascent(params, state, rho=RHO)
        elif name == "own eps":
            at = jax.lax.pcast(params, AXIS, to="varying")
        grads, new = jax.grad(given.loss, has_aux=True)(at, rest, batch)
        if name == "subset":
            grads = grad_fn(params, batch=own_first(batch, given.mesh, 16))
        if name.startswith("alternating"):
            extra = dict(perturb=name.endswith("1st"))
        elif name not in ("base", "momentum"):
            extra = dict(grad_fn=grad_fn)
        updates, state = tx.update(grads, state, params, **extra)
        return optax.apply_updates(params, updates), new, state

    def mapped(*arguments):
        def own(*arguments):
            params, rest, state = one(*arguments)
            return params, jax.lax.pmean(rest, AXIS) if jax.tree.leaves(rest) else rest, state

        specs = (P(), P(), P(), P(AXIS))
        return jax.shard_map(own, mesh=given.mesh, in_specs=specs, out_specs=P())(*arguments)

    by_shape = {leaf.shape: leaf.sharding for leaf in jax.tree.leaves(given.params)}
    whole = NamedSharding(given.mesh, P())
    state = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(
            leaf.shape, leaf.dtype, sharding=by_shape.get(leaf.shape, whole)
        ),
        jax.eval_shape(tx.init, given.params),
    )
    return mapped if name == "own eps" else one, state
