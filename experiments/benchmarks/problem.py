"""The network, the batch and the base optimizer that benchmarks step on."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from experiments import models
from experiments.training.variants import AUTHORS

IMAGE_SHAPE = (32, 32, 3)


class Problem(NamedTuple):
    """A loss (params, rest, batch) -> (loss, new rest), where to start, and a batch."""

    loss: Callable[..., tuple[jax.Array, Any]]
    params: Any
    rest: Any
    batch: Any

    def part(self, share: int) -> Callable[[Any, Any], tuple[jax.Array, Any]]:
        """The loss of one nth of the batch."""
        count = max(len(self.batch[1]) // share, 1)
        batch = jax.tree.map(lambda x: x[:count], self.batch)
        return lambda params, rest: self.loss(params, rest, batch)


def classifier(model: str, dtype: str = "float32") -> Any:
    """The loss of a fresh network on a batch, its parameters, and BatchNorm's statistics."""
    how: dict[str, Any] = dict(num_classes=10, image_shape=IMAGE_SHAPE, dtype=jnp.dtype(dtype))
    network = models.create(model, rngs=nnx.Rngs(0), **how)
    network.train()
    graphdef, params, rest = nnx.split(network, nnx.Param, ...)

    def loss(params, rest, batch):
        net = nnx.merge(graphdef, params, rest, copy=True)
        logits = net(batch[0]).astype(jnp.float32)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch[1])
        return jnp.mean(losses), nnx.split(net, nnx.Param, ...)[2]

    return loss, params, rest


def problem(model: str, images: int, dtype: str) -> Problem:
    """The network on random images: what a step costs does not depend on what they show."""
    rng = np.random.default_rng(0)
    pictures = jnp.asarray(rng.normal(size=(images, *IMAGE_SHAPE)), dtype)
    batch = (pictures, jnp.asarray(rng.integers(10, size=images), jnp.int32))
    loss, params, rest = classifier(model, dtype)
    return Problem(loss, params, rest, batch)


def plain_formula(params: Any, grads: Any, rho: float) -> Any:
    """ASAM's eps as a reader of the paper would write it; it overflows and divides by zero."""
    t = AUTHORS(params)
    norm = optax.tree.norm(jax.tree.map(jnp.multiply, t, grads))
    return jax.tree.map(lambda t, g: rho * t * t * g / norm, t, grads)


def base() -> optax.GradientTransformation:
    """SGD with momentum, the weight decay added to the gradient."""
    return optax.chain(optax.add_decayed_weights(5e-4), optax.sgd(0.1, momentum=0.9))
