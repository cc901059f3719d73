"""The steps that `benchmark step` compares: one network, one batch, one base optimizer.

Each of them is a state and a pure function state -> state to be jitted with its state donated. The
statistics of BatchNorm come from the first pass; the augmentation is left out, since it costs the
same in all.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import asam_jax
from experiments import models
from experiments.datasets import augmentation

LEARNING_RATE, MOMENTUM, WEIGHT_DECAY = 0.1, 0.9, 5e-4
RHO_SAM, RHO_ASAM = 0.05, 0.5
IMAGE_SHAPE = (32, 32, 3)

Call = Callable[[Any], Any]


class ComparedStep(NamedTuple):
    """A name, and the calls that, one after the other, make so many training steps."""

    name: str
    state: Any
    calls: tuple[Call, ...]
    makes: int = 1


class Problem(NamedTuple):
    """A loss of (params, rest) -> (loss, new rest) on one fixed batch, and where it starts."""

    loss: Callable[[Any, Any], tuple[jax.Array, Any]]
    params: Any
    rest: Any
    # The loss of one nth of the batch.
    part: Callable[[int], Callable[[Any, Any], tuple[jax.Array, Any]]]


def network_of(model: str, dtype: str) -> nnx.Module:
    """A fresh network for images of `IMAGE_SHAPE` in ten classes."""
    return models.create(
        model, num_classes=10, image_shape=IMAGE_SHAPE, rngs=nnx.Rngs(0), dtype=jnp.dtype(dtype)
    )


def problem(model: str, batch_size: int, dtype: str) -> Problem:
    """The network on random images: what a step costs does not depend on what they show."""
    network = network_of(model, dtype)
    network.train()
    graphdef, params, rest = nnx.split(network, nnx.Param, ...)
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.normal(size=(batch_size, *IMAGE_SHAPE)), dtype)
    labels = jnp.asarray(rng.integers(10, size=batch_size))

    def part(share: int):
        count = max(batch_size // share, 1)

        def loss(params, rest):
            net = nnx.merge(graphdef, params, rest, copy=True)
            logits = net(images[:count]).astype(jnp.float32)
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels[:count])
            return jnp.mean(losses), nnx.split(net, nnx.Param, ...)[2]

        return loss

    return Problem(part(1), params, rest, part)


def base() -> optax.GradientTransformation:
    """SGD with momentum, the weight decay added to the gradient."""
    return optax.chain(
        optax.add_decayed_weights(WEIGHT_DECAY), optax.sgd(LEARNING_RATE, momentum=MOMENTUM)
    )


def exact_steps(given: Problem) -> list[ComparedStep]:
    """SGD first: the others, of two gradients each, are reported relative to it."""
    links = {
        "SAM": asam_jax.sam(base(), RHO_SAM),
        "ASAM, element-wise": asam_jax.asam(base(), RHO_ASAM),
        "ASAM, filter-wise": optax.chain(
            asam_jax.sharpness_aware(RHO_ASAM, operator=asam_jax.filterwise()), base()
        ),
    }
    made = [ComparedStep("SGD", _start(given, base()), (_plain(given, base()),))]
    for name, tx in links.items():
        made.append(ComparedStep(name, _start(given, tx), (_linked(given, tx),)))
    alternating = asam_jax.alternating(base(), RHO_ASAM)
    twice = (_plain(given, alternating),) * 2
    made.append(ComparedStep("ASAM, alternating", _start(given, alternating), twice))
    ascent = optax.chain(optax.contrib.normalize(), optax.sgd(RHO_SAM))
    opaque = optax.contrib.sam(base(), ascent, sync_period=2, opaque_mode=True)
    made.append(
        ComparedStep("optax.contrib.sam, opaque", _start(given, opaque), (_opaque(given, opaque),))
    )
    transparent = optax.contrib.sam(base(), ascent, sync_period=2)
    twice = (_plain(given, transparent),) * 2
    made.append(ComparedStep("optax.contrib.sam, transparent", _start(given, transparent), twice))
    return made


def bare_gradient(given: Problem) -> ComparedStep:
    """One value and gradient, the unit of cost; the gradient is kept as the state."""
    grads = jax.tree.map(jnp.zeros_like, given.params)

    def step(state):
        params, rest, _ = state
        (_, rest), grads = jax.value_and_grad(given.loss, has_aux=True)(params, rest)
        return params, rest, grads

    return ComparedStep("one gradient", copied((given.params, given.rest, grads)), (step,))


def bare_update(given: Problem) -> ComparedStep:
    """The base optimizer's update alone."""
    tx = base()
    grads = jax.tree.map(lambda w: 1e-3 * w, given.params)

    def step(state):
        params, opt_state = state
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    return ComparedStep("base update", copied((given.params, tx.init(given.params))), (step,))


def input_pipeline(batch_size: int) -> ComparedStep:
    """A batch picked from images on the device, augmented and normalised, as training does it."""
    count = 10_000
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.integers(256, size=(count, *IMAGE_SHAPE), dtype=np.uint8))
    order = jnp.asarray(rng.permutation(count), jnp.int32)

    def step(state):
        images, order, number, _ = state
        start = number * batch_size % (count - batch_size)
        picked = images[jax.lax.dynamic_slice_in_dim(order, start, batch_size)]
        key = jax.random.fold_in(jax.random.key(0), number)
        augmented = augmentation.augment(key, picked, pad=4, flip=True, cutout=0)
        batch = augmentation.normalize(augmented, (0.5,) * 3, (0.25,) * 3, jnp.dtype("float32"))
        return images, order, number + 1, batch

    batch = jnp.zeros((batch_size, *IMAGE_SHAPE), jnp.float32)
    return ComparedStep("input and augmentation", (images, order, jnp.int32(0), batch), (step,))


def _start(given: Problem, tx: optax.GradientTransformation):
    return copied((given.params, given.rest, tx.init(given.params)))


def copied(state):
    """Buffers of its own for each step, since all of them are donated."""
    return jax.tree.map(jnp.array, state)


def _gradient(given: Problem, rest) -> Callable[[Any], Any]:
    return lambda params: jax.grad(given.loss, has_aux=True)(params, rest)[0]


def _plain(given: Problem, tx) -> Call:
    """A loop that owns the gradient call: one gradient a call."""

    def step(state):
        params, rest, opt_state = state
        (_, new_rest), grads = jax.value_and_grad(given.loss, has_aux=True)(params, rest)
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), new_rest, opt_state

    return step


def _linked(given: Problem, tx) -> Call:
    """A step with the link of asam_jax, which takes the second gradient itself."""

    def step(state):
        params, rest, opt_state = state
        (_, new_rest), grads = jax.value_and_grad(given.loss, has_aux=True)(params, rest)
        grad_fn = _gradient(given, rest)
        updates, opt_state = tx.update(grads, opt_state, params, grad_fn=grad_fn)
        return optax.apply_updates(params, updates), new_rest, opt_state

    return step


def _opaque(given: Problem, tx) -> Call:
    def step(state):
        params, rest, opt_state = state
        (_, new_rest), grads = jax.value_and_grad(given.loss, has_aux=True)(params, rest)
        grad_fn = _gradient(given, rest)
        updates, opt_state = tx.update(
            grads, opt_state, params, grad_fn=lambda params, _: grad_fn(params)
        )
        return optax.apply_updates(params, updates), new_rest, opt_state

    return step
