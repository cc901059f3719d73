"""One training step as a pure function of (state, data, hyper-parameters), for every backend.

A run is a function of its seed alone: the initial parameters, each epoch's order and each step's
augmentation are keyed by (seed, epoch) or (seed, step), which the state carries. So a run that
resumes from a stored state goes on exactly as if it had never stopped.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

import asam_jax
from experiments import augment, models
from experiments.config import RunConfig
from experiments.data import Dataset

# Names of the independent streams of random numbers that a seed opens.
_INIT, _ORDER, _AUGMENT = range(3)


@dataclasses.dataclass(frozen=True)
class ModelSpec:
    """What fixes a network's computation, and so its compiled evaluation."""

    name: str
    num_classes: int
    image_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    dtype: str


@dataclasses.dataclass(frozen=True)
class StepSpec:
    """What fixes a step's computation: a value here costs a compilation, one in Hyper does not."""

    model: ModelSpec
    method: str
    normalization: str
    adapt: str
    eta: float
    p: float
    nesterov: bool
    augment: bool
    cutout: int
    batch_size: int


class Hyper(NamedTuple):
    """Numbers that a compiled step takes as arguments."""

    lr: jax.Array
    momentum: jax.Array
    weight_decay: jax.Array
    rho: jax.Array
    label_smoothing: jax.Array
    total_steps: jax.Array


class TrainState(NamedTuple):
    """All that changes while training; sums run over the current epoch's first passes."""

    params: Any
    rest: Any  # BatchNorm statistics and the like
    opt_state: Any
    seed: jax.Array
    step: jax.Array
    loss_sum: jax.Array
    correct_sum: jax.Array


def spec_of(config: RunConfig, dataset: Dataset) -> StepSpec:
    """The static half of a run."""
    model = ModelSpec(
        name=config.model,
        num_classes=dataset.num_classes,
        image_shape=dataset.image_shape,
        mean=dataset.mean,
        std=dataset.std,
        dtype=config.dtype,
    )
    names = [field.name for field in dataclasses.fields(StepSpec) if field.name != "model"]
    return StepSpec(model=model, **{name: getattr(config, name) for name in names})


def hyper_of(config: RunConfig, total_steps: int) -> Hyper:
    """The traced half of a run."""
    values = (config.lr, config.momentum, config.weight_decay, config.rho, config.label_smoothing)
    return Hyper(*(jnp.float32(value) for value in values), jnp.float32(total_steps))


def init(spec: ModelSpec, seed: jax.Array) -> TrainState:
    """Fresh parameters and an empty momentum."""
    key = jax.random.fold_in(jax.random.key(seed), _INIT)
    _, params, rest = nnx.split(_create(spec, nnx.Rngs(key)), nnx.Param, ...)
    zero = jnp.zeros((), jnp.int32)
    return TrainState(
        params=params,
        rest=rest,
        opt_state=_base(0.0, 0.9, 0.0, nesterov=False).init(params),
        seed=jnp.asarray(seed, jnp.uint32),
        step=zero,
        loss_sum=zero.astype(jnp.float32),
        correct_sum=zero,
    )


def epoch_order(seed: jax.Array, epoch: jax.Array, count: int, batch_size: int) -> jax.Array:
    """The images of an epoch in their order; the remainder that fills no batch sits out."""
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), _ORDER), epoch)
    return jax.random.permutation(key, count)[: count // batch_size * batch_size]


def train_step(
    spec: StepSpec, state: TrainState, order: jax.Array, images, labels, hyper: Hyper
) -> tuple[TrainState, jax.Array]:
    """One step of SGD, SAM or ASAM on the state's next batch; returns its loss, too."""
    position = state.step % (order.shape[0] // spec.batch_size)
    index_B = jax.lax.dynamic_slice(order, (position * spec.batch_size,), (spec.batch_size,))
    images_BxHxWxC = _prepare(spec, images[index_B], state.seed, state.step)
    labels_B = labels[index_B]
    graphdef = _graphdef(spec.model, train=True)

    def loss_fn(params, rest):
        model = nnx.merge(graphdef, params, rest)
        logits = model(images_BxHxWxC).astype(jnp.float32)
        loss = jnp.mean(_cross_entropy(logits, labels_B, hyper.label_smoothing))
        _, _, new_rest = nnx.split(model, nnx.Param, ...)
        return loss, (new_rest, _correct(logits, labels_B))

    # Statistics, loss and accuracy are those of the first, unperturbed pass.
    gradient = _gradient_fn(spec, loss_fn, hyper.rho)
    (loss, (rest, correct)), grads = gradient(state.params, state.rest)
    progress = state.step.astype(jnp.float32) / hyper.total_steps
    lr = hyper.lr * 0.5 * (1 + jnp.cos(jnp.pi * progress))
    base = _base(lr, hyper.momentum, hyper.weight_decay, nesterov=spec.nesterov)
    updates, opt_state = base.update(grads, state.opt_state, state.params)
    first = position == 0
    new_state = TrainState(
        params=optax.apply_updates(state.params, updates),
        rest=rest,
        opt_state=opt_state,
        seed=state.seed,
        step=state.step + 1,
        loss_sum=jnp.where(first, 0.0, state.loss_sum) + loss,
        correct_sum=jnp.where(first, 0, state.correct_sum) + correct,
    )
    return new_state, loss


def evaluate(spec: ModelSpec, params, rest, images, labels) -> tuple[jax.Array, jax.Array]:
    """Summed cross-entropy (without smoothing) and the number right; labels of -1 do not count."""
    model = nnx.merge(_graphdef(spec, train=False), params, rest)
    inputs = augment.normalize(images, spec.mean, spec.std, jnp.dtype(spec.dtype))
    logits = model(inputs).astype(jnp.float32)
    losses = _cross_entropy(logits, jnp.maximum(labels, 0), jnp.float32(0))
    return jnp.sum(jnp.where(labels >= 0, losses, 0.0)), _correct(logits, labels)


def _prepare(spec: StepSpec, images, seed, step):
    if spec.augment:
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), _AUGMENT), step)
        images = augment.augment(key, images, pad=4, flip=True, cutout=spec.cutout)
    model = spec.model
    return augment.normalize(images, model.mean, model.std, jnp.dtype(model.dtype))


def _gradient_fn(spec: StepSpec, loss_fn, rho):
    if spec.method == "sgd":
        return jax.value_and_grad(loss_fn, has_aux=True)
    return asam_jax.value_and_grad(
        loss_fn, rho=rho, operator=operator_of(spec), p=spec.p, has_aux=True
    )


def operator_of(spec: StepSpec):
    """The normalization operator that the spec names."""
    if spec.normalization == "identity":
        return asam_jax.identity()
    adapt = {"not_bias": asam_jax.not_bias, "all": asam_jax.all_leaves}[spec.adapt]
    make = {"elementwise": asam_jax.elementwise, "filterwise": asam_jax.filterwise}
    return make[spec.normalization](spec.eta, adapt=adapt)


def _base(lr, momentum, weight_decay, *, nesterov: bool) -> optax.GradientTransformation:
    return optax.chain(
        optax.add_decayed_weights(weight_decay),
        optax.sgd(lr, momentum=momentum, nesterov=nesterov),
    )


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
    return nnx.split(model, nnx.Param, ...)[0]
