"""Ways to run the same step: a host loop for the CPU, a scan over an epoch for accelerators.

On the CPU, XLA runs a convolution inside scan some 20 to 45 times slower than outside; on an
accelerator a scan spares a launch for every step. A loop trains one seed: several at once would
turn convolutions into grouped ones, which are slow on both. Several devices have a loop of their
own, `sharded`. Every loop yields after a number of steps with the state so far, and the caller
saves, stops or goes on.
"""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from asam_jax import RadiusProfile
from experiments.config.errors import ConfigError
from experiments.config.run_config import RunConfig
from experiments.datasets import arrays
from experiments.datasets.arrays import Dataset
from experiments.training import cpu, gradients
from experiments.training import step as stepping
from experiments.training.sharded_loop import ShardedLoop
from experiments.training.spec import Hyper, StepSpec, TrainState, hyper_of, spec_of

EVALUATION_BATCH = 1000


class HostLoop:
    """The host launches each step, one ahead of the device at most."""

    name = "host"

    def __init__(self, spec: StepSpec, dataset: Dataset, hyper: Hyper, seed: int):
        self.spec, self.hyper, self.seed = spec, hyper, jnp.uint32(seed)
        self._numbers = jax.device_get(hyper)  # once, not at every step that might climb
        self._step = _jitted_step(spec.model.image_shape)
        self.train = (jnp.asarray(dataset.train_images), jnp.asarray(dataset.train_labels))
        self.test = [
            (jnp.asarray(images), jnp.asarray(labels))
            for images, labels in zip(*_chunks(dataset), strict=True)
        ]
        self.steps_per_epoch = spec.steps(len(dataset.train_labels))

    def init(self) -> TrainState:
        return _init(self.spec, self.seed)

    def epoch(self, state: TrainState, epoch: int, start: int) -> Iterator[tuple[TrainState, int]]:
        """Yields (state, steps taken since the last yield) from step `start` of the epoch on."""
        images, labels = self.train
        order = _order(self.spec, self.seed, jnp.int32(epoch), len(labels))
        previous = None
        for number in range(start, self.steps_per_epoch):
            spec = self._at(state, epoch * self.steps_per_epoch + number)
            state, loss = self._step(spec, state, order, images, labels, self.hyper)
            if previous is not None:
                previous.block_until_ready()
            previous = loss
            yield state, 1

    def _at(self, state: TrainState, step: int) -> StepSpec:
        """The spec of a step that climbs, or of one that does not, where there are both.

        Decided here, since a convolution inside a condition is as slow as inside scan.
        """
        spec = self.spec.at(step, len(self.train[1]))
        climb = stepping.climbs(spec, state, step, self._numbers)
        return spec if climb is True else dataclasses.replace(spec, climb=bool(climb))

    def evaluate(self, state: TrainState) -> tuple[np.ndarray, np.ndarray]:
        """Loss summed over the test set, and the number right."""
        weights = state.params, state.rest
        parts = [stepping.jitted_evaluate(self.spec.model, *weights, *c) for c in self.test]
        losses, correct = jax.device_get(list(zip(*parts, strict=True)))
        return np.sum(losses), np.sum(correct)


class ScanLoop:
    """An epoch is one program, and so is the evaluation."""

    name = "scan"

    def __init__(self, spec: StepSpec, dataset: Dataset, hyper: Hyper, seed: int):
        self.spec, self.hyper, self.seed = spec, hyper, jnp.uint32(seed)
        self.train = (jnp.asarray(dataset.train_images), jnp.asarray(dataset.train_labels))
        images, labels = _chunks(dataset)
        self.test = (jnp.asarray(images), jnp.asarray(labels))
        self.steps_per_epoch = spec.steps(len(dataset.train_labels))

    def init(self) -> TrainState:
        return _init(self.spec, self.seed)

    def epoch(self, state: TrainState, epoch: int, start: int) -> Iterator[tuple[TrainState, int]]:
        """As HostLoop.epoch, in one yield; a state from within an epoch finishes that epoch."""
        steps = self.steps_per_epoch - start
        if steps:
            state = _scan_epoch(
                self.spec, state, self.seed, jnp.int32(epoch), *self.train, self.hyper, steps=steps
            )
            jax.block_until_ready(state.step)
            yield state, steps

    def evaluate(self, state: TrainState) -> tuple[np.ndarray, np.ndarray]:
        """As HostLoop.evaluate."""
        weights = state.params, state.rest
        return jax.device_get(_evaluate_whole(self.spec.model, *weights, *self.test))


def make_loop(name: str, spec: StepSpec, dataset: Dataset, hyper: Hyper, seed: int):
    """The loop of that name ('host', 'scan' or 'sharded')."""
    kinds = {"host": HostLoop, "scan": ScanLoop, "sharded": ShardedLoop}
    return kinds[name](spec, dataset, hyper, seed)


def of_run(name: str, config: RunConfig, dataset: Dataset):
    """The loop of that name that trains a run on its prepared data."""
    spec = spec_of(config, dataset)
    hyper = hyper_of(config, config.epochs * spec.steps(len(dataset.train_labels)))
    return make_loop(name, spec, dataset, hyper, config.seed)


def profile(loop: Any, state: TrainState, epoch: int, radii: Sequence[float]) -> RadiusProfile:
    """`radius_profile` on the first batch of an epoch; one program for any radii."""
    images, labels = loop.train
    order = _order(loop.spec, loop.seed, jnp.int32(epoch), len(labels))
    measure = _jitted_profile(loop.spec.model.image_shape)
    at = jnp.asarray(radii, jnp.float32)
    return measure(loop.spec, state, order, images, labels, loop.hyper, at)


def set_radius(loop: Any, rho: float) -> None:
    """The loop's steps climb by another radius from now on; nothing compiles anew."""
    loop.hyper = loop.hyper._replace(rho=jnp.float32(rho))


def resolve(name: str, devices: int = 1) -> str:
    """'auto' is sharded on several devices, else the host loop on the CPU and scan elsewhere."""
    if name not in ("auto", "host", "scan"):
        raise ConfigError(f"unknown loop {name!r}; the known ones are: auto, host, scan.")
    if devices > 1:
        if name != "auto":
            raise ConfigError(f"loop={name!r} runs on one device, not on {devices}; leave it out.")
        return "sharded"
    if name != "auto":
        return name
    return "host" if jax.default_backend() == "cpu" else "scan"


def _init(spec: StepSpec, seed: jax.Array) -> TrainState:
    state = stepping.jitted_init(spec.model, seed, spec.optimizer)
    return state._replace(memory=gradients.init(spec, state.params))


def _chunks(dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """The test set in equal chunks, the last one filled up with images whose label is -1."""
    count = len(dataset.test_labels)
    size = min(count, EVALUATION_BATCH)
    chunks = -(-count // size)
    images, labels = arrays.filled_up(dataset.test_images, dataset.test_labels, chunks * size)
    return images.reshape(chunks, size, *images.shape[1:]), labels.reshape(chunks, size)


# One compilation for each spec; seeds, rho, learning rate and epochs are arguments.
_order = jax.jit(stepping.epoch_order, static_argnums=(0, 3))


@functools.cache
def _jitted_step(image_shape: tuple[int, int, int]):
    return jax.jit(
        stepping.train_step,
        static_argnums=0,
        donate_argnums=1,
        compiler_options=cpu.compiler_options(image_shape),
    )


@functools.cache
def _jitted_profile(image_shape: tuple[int, int, int]):
    options = cpu.compiler_options(image_shape)
    return jax.jit(stepping.profile, static_argnums=0, compiler_options=options)


@functools.partial(jax.jit, static_argnums=0, donate_argnums=1, static_argnames="steps")
def _scan_epoch(spec, state, seed, epoch, images, labels, hyper, *, steps):
    order = stepping.epoch_order(spec, seed, epoch, len(labels))

    def body(state, _, spec=spec):
        return stepping.train_step(spec, state, order, images, labels, hyper)

    last = spec.at(-1, len(labels))
    partial = last != spec
    state, _ = jax.lax.scan(body, state, None, length=steps - partial)
    return body(state, None, last)[0] if partial else state


@functools.partial(jax.jit, static_argnums=0)
def _evaluate_whole(spec, params, rest, images, labels):
    def chunk(c):
        return stepping.evaluate(spec, params, rest, *c)

    return jax.tree.map(jnp.sum, jax.lax.map(chunk, (images, labels)))
