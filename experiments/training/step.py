"""One training step as a pure function of (state, data, hyper-parameters), for every backend.

A run is a function of its seed alone: the initial parameters, each epoch's order and each step's
augmentation are keyed by (seed, epoch) or (seed, step), which the state carries. So a run that
resumes from a stored state goes on exactly as if it had never stopped. On several devices each has
its own share of the images, with an order and an augmentation of its own.
"""

import functools
from typing import Any, cast

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from experiments import models
from experiments.datasets import augmentation
from experiments.training import optimizers, parameterization, variants
from experiments.training.spec import Hyper, ModelSpec, StepSpec, TrainState

# Names of the independent streams of random numbers that a seed opens.
_INIT, _ORDER, _AUGMENT = range(3)


def init(spec: ModelSpec, seed: jax.Array, optimizer: str = "sgd") -> TrainState:
    """Fresh parameters and an empty momentum; what a variant remembers is `variants.init`'s."""
    key = _stream(seed, _INIT)
    _, params, rest = nnx.split(_create(spec, nnx.Rngs(key)), nnx.Param, ...)
    params = parameterization.over(spec.parameterization, params, 1)
    zero = jnp.zeros((), jnp.int32)
    return TrainState(
        params=params,
        rest=rest,
        opt_state=optimizers.base(optimizer, 0.0, 0.9, 0.0, nesterov=False).init(params),
        memory=(),
        seed=jnp.asarray(seed, jnp.uint32),
        step=zero,
        loss_sum=zero.astype(jnp.float32),
        correct_sum=zero,
    )


def epoch_order(spec: StepSpec, seed: jax.Array, epoch: jax.Array, count: int) -> jax.Array:
    """The device's images in an epoch's order; the remainder that fills no batch sits out."""
    key = _device_key(spec, jax.random.fold_in(_stream(seed, _ORDER), epoch))
    return jax.random.permutation(key, count)[: count // spec.local_batch * spec.local_batch]


def train_step(
    spec: StepSpec, state: TrainState, order: jax.Array, images, labels, hyper: Hyper
) -> tuple[TrainState, jax.Array]:
    """One step of SGD, SAM or ASAM on the state's next batch; returns its loss, too."""
    position, images_BxHxWxC, labels_B = _batch(spec, state, order, images, labels)
    loss_fn = functools.partial(_loss, spec, hyper)
    hyper = variants.at_step(spec, hyper, state.step)
    variant = variants.VARIANTS[spec.run.variant]
    subset = spec.local_batch // variant.subset
    perturb = spec.perturb
    if perturb is None:
        perturb = variant.perturbs(state.step, hyper["total_steps"])
    (loss, (rest, correct)), grads, memory = variants.gradient(
        spec,
        state,
        hyper,
        functools.partial(loss_fn, images_BxHxWxC, labels_B),
        functools.partial(loss_fn, images_BxHxWxC[:subset], labels_B[:subset]),
        perturb,
    )
    base = optimizers.base(
        spec.run.optimizer,
        learning_rate(spec, hyper, state.step.astype(jnp.float32) / hyper["total_steps"]),
        hyper["momentum"],
        hyper["weight_decay"],
        nesterov=spec.run.nesterov,
    )
    grads = parameterization.over(spec.model.parameterization, grads, 2)
    updates, opt_state = base.update(grads, state.opt_state, state.params)
    if spec.axis_name is not None:  # all devices carry the same state
        rest, correct = jax.lax.pmean(rest, spec.axis_name), jax.lax.psum(correct, spec.axis_name)
    first = position == 0
    new_state = TrainState(
        params=optax.apply_updates(state.params, updates),
        rest=rest,
        opt_state=opt_state,
        memory=memory,
        seed=state.seed,
        step=state.step + 1,
        loss_sum=jnp.where(first, 0.0, state.loss_sum) + loss,
        correct_sum=jnp.where(first, 0, state.correct_sum) + correct,
    )
    return new_state, loss


def learning_rate(spec: StepSpec, hyper: Hyper, progress: jax.Array) -> jax.Array:
    """The cosine from the largest to 0 over the training, behind a linear rise from 0 if any."""
    # In shares of the training, so that its length compiles nothing anew.
    schedule: Any = optax.cosine_decay_schedule(1.0, 1)
    if spec.run.warmup:
        schedule = optax.warmup_cosine_decay_schedule(0.0, 1.0, cast(int, spec.run.warmup), 1)
    return hyper["lr"] * schedule(progress)


def evaluate(spec: ModelSpec, params, rest, images, labels) -> tuple[jax.Array, jax.Array]:
    """Summed cross-entropy (without smoothing) and the number right; labels of -1 do not count."""
    inputs = augmentation.normalize(images, spec.mean, spec.std, jnp.dtype(spec.dtype))
    logits, _ = _forward(spec, params, rest, inputs, train=False)
    losses = _cross_entropy(logits, jnp.maximum(labels, 0), jnp.float32(0))
    return jnp.sum(jnp.where(labels >= 0, losses, 0.0)), _correct(logits, labels)


# One compilation for each spec, whoever calls.
jitted_init = jax.jit(init, static_argnames=("spec", "optimizer"))


def _batch(spec: StepSpec, state: TrainState, order, images, labels):
    """The step's place in its epoch, its prepared images and their labels."""
    position = state.step % (order.shape[0] // spec.local_batch)
    start = position * spec.local_batch
    index_B = jax.lax.dynamic_slice_in_dim(order, start, spec.local_batch)
    images_BxHxWxC, model = images[index_B], spec.model
    if spec.run.augment:
        key = _device_key(spec, jax.random.fold_in(_stream(state.seed, _AUGMENT), state.step))
        images_BxHxWxC = augmentation.augment(key, images_BxHxWxC, spec.run.cutout)
    dtype = jnp.dtype(model.dtype)
    prepared = augmentation.normalize(images_BxHxWxC, model.mean, model.std, dtype)
    return position, prepared, labels[index_B]


def _loss(spec: StepSpec, hyper: Hyper, images, labels, params, rest):
    """The mean loss, (rest after the pass, how many are right)."""
    logits, new_rest = _forward(spec.model, params, rest, images, train=True)
    loss = jnp.mean(_cross_entropy(logits, labels, hyper["label_smoothing"]))
    return loss, (new_rest, _correct(logits, labels))


def _forward(spec: ModelSpec, params, rest, inputs, *, train: bool) -> tuple[jax.Array, Any]:
    """Logits in float32, whatever the network computes in, and the rest after the pass."""
    weights = parameterization.weights(spec.parameterization, params)
    network = nnx.merge(_graphdef(spec, train=train), weights, rest, copy=True)
    with jax.default_matmul_precision(spec.precision):
        logits = network(inputs).astype(jnp.float32)
    return logits, nnx.split(network, nnx.Param, ...)[2]


def _stream(seed, name: int) -> jax.Array:
    return jax.random.fold_in(jax.random.key(seed), name)


def _device_key(spec: StepSpec, key: jax.Array) -> jax.Array:
    """A key of the device's own, where there are several."""
    if spec.axis_name is None:
        return key
    return jax.random.fold_in(key, jax.lax.axis_index(spec.axis_name))


def _cross_entropy(logits, labels, smoothing):
    targets = jax.nn.one_hot(labels, logits.shape[-1])
    return optax.softmax_cross_entropy(logits, optax.smooth_labels(targets, smoothing))


def _correct(logits, labels):
    return jnp.sum(jnp.argmax(logits, axis=-1).astype(jnp.int32) == labels, dtype=jnp.int32)


def _create(spec: ModelSpec, rngs: nnx.Rngs) -> nnx.Module:
    return models.create(
        spec.name,
        num_classes=spec.num_classes,
        image_shape=spec.image_shape,
        rngs=rngs,
        dtype=jnp.dtype(spec.dtype),
    )


@functools.lru_cache
def _graphdef(spec: ModelSpec, *, train: bool):
    """The network's structure in one mode, without its arrays."""
    model = nnx.eval_shape(lambda: _create(spec, nnx.Rngs(0)))
    model.train() if train else model.eval()
    model.set_attributes(norm_axis=spec.norm_axis, raise_if_not_found=False)
    return nnx.split(model, nnx.Param, ...)[0]
