"""The third way to run the step: the batch cut over several devices, of one process or of many.

Each device holds a share of the images and draws its part of every batch from it, so that a process
keeps its own devices' images alone. Parameters are replicated. What each device perturbs by, and
whose statistics BatchNorm uses, are the configuration's `perturb` and `batch_norm`. The numbers
depend on how many devices there are, not on how many processes they belong to.
"""

import functools
from collections.abc import Iterator
from functools import partial

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from experiments.config.errors import ConfigError
from experiments.datasets import arrays
from experiments.datasets.arrays import Dataset
from experiments.training import step as stepping
from experiments.training.spec import AXIS, Hyper, StepSpec, TrainState

EVALUATION_SHARE = 250


class ShardedLoop:
    """A step on `spec.devices` devices, launched by the host."""

    name = "sharded"

    def __init__(self, spec: StepSpec, dataset: Dataset, hyper: Hyper, seed: int):
        self.mesh = make_mesh(spec.devices)
        self.spec, self.seed = spec, np.uint32(seed)
        self.hyper = self._replicate(hyper)
        share = len(dataset.train_labels) // spec.devices
        self.train = self._cut(dataset.train_images, share), self._cut(dataset.train_labels, share)
        self.test = self._test_chunks(dataset)
        self.steps_per_epoch = share // spec.local_batch
        self._step, self._order, self._evaluate = _compiled(spec, self.mesh, share)

    def init(self) -> TrainState:
        """Drawn by every process alike, then laid on the devices."""
        return self._replicate(
            stepping.jitted_init(self.spec.model, self.seed, self.spec.optimizer)
        )

    def epoch(self, state: TrainState, epoch: int, start: int) -> Iterator[tuple[TrainState, int]]:
        """As HostLoop.epoch."""
        order = self.order(epoch)
        previous = None
        for _ in range(start, self.steps_per_epoch):
            state, loss = self._step(state, order, *self.train, self.hyper)
            if previous is not None:
                previous.block_until_ready()
            previous = loss
            yield state, 1

    def order(self, epoch: int) -> jax.Array:
        """Each device's order of its own images in an epoch, one device after the other."""
        return self._order(self.seed, np.int32(epoch))

    def evaluate(self, state: TrainState) -> tuple[np.ndarray, np.ndarray]:
        """As HostLoop.evaluate."""
        parts = [self._evaluate(state.params, state.rest, *chunk) for chunk in self.test]
        losses, correct = jax.device_get(list(zip(*parts, strict=True)))
        return np.sum(losses), np.sum(correct)

    def _test_chunks(self, dataset: Dataset):
        """The test set in chunks of all devices' shares; labels of -1 fill up the last one."""
        count = len(dataset.test_labels)
        share = min(EVALUATION_SHARE, -(-count // self.spec.devices))
        whole = share * self.spec.devices
        chunks = []
        for low in range(0, count, whole):
            images = dataset.test_images[low : low + whole]
            labels = dataset.test_labels[low : low + whole]
            images, labels = arrays.filled_up(images, labels, whole)
            chunks.append((self._cut(images, share), self._cut(labels, share)))
        return chunks

    def _cut(self, array: np.ndarray, share: int) -> jax.Array:
        """Rows d * share to (d + 1) * share on device d; a process reads its own devices' alone."""
        shape = (share * self.spec.devices, *array.shape[1:])
        sharding = NamedSharding(self.mesh, P(AXIS))
        return jax.make_array_from_callback(shape, sharding, lambda index: array[index])

    def _replicate(self, tree):
        sharding = NamedSharding(self.mesh, P())

        def lay(leaf):
            value = np.asarray(leaf)
            return jax.make_array_from_callback(value.shape, sharding, lambda index: value[index])

        return jax.tree.map(lay, tree)


def make_mesh(devices: int) -> Mesh:
    """A mesh of so many devices, those of every process side by side."""
    if devices > jax.device_count():
        raise ConfigError(
            f"devices={devices} is more than the {jax.device_count()} that JAX sees; on a CPU "
            f"XLA_FLAGS=--xla_force_host_platform_device_count={devices} makes virtual ones."
        )
    return Mesh(np.array(jax.devices()[:devices]), (AXIS,))


@functools.lru_cache
def _compiled(spec: StepSpec, mesh: Mesh, share: int):
    """The step, an epoch's order and the evaluation, mapped over the devices."""
    mapped = partial(jax.shard_map, mesh=mesh)

    @partial(jax.jit, donate_argnums=0)
    @partial(mapped, in_specs=(P(), P(AXIS), P(AXIS), P(AXIS), P()), out_specs=(P(), P()))
    def step(state, order, images, labels, hyper):
        return stepping.train_step(spec, state, order, images, labels, hyper)

    @jax.jit
    @partial(mapped, in_specs=(P(), P()), out_specs=P(AXIS))
    def order(seed, epoch):
        return stepping.epoch_order(spec, seed, epoch, share)

    @jax.jit
    @partial(mapped, in_specs=(P(), P(), P(AXIS), P(AXIS)), out_specs=(P(), P()))
    def evaluate(params, rest, images, labels):
        sums = stepping.evaluate(spec.model, params, rest, images, labels)
        return jax.lax.psum(sums, AXIS)

    return step, order, evaluate
