"""The loop that trains: one compiled step with its arrays laid out over the devices of a mesh.

On the CPU the host launches each step: XLA runs a convolution inside scan some 20 to 45 times
slower there than outside. On an accelerator an epoch is one scan, which spares a launch for every
step. Over several devices the batch is cut: each draws its part of every batch from its own share
of the images, so that a process keeps its own devices' images alone, and parameters are
replicated. The numbers depend on how many devices there are, not on whose processes they are.

A loop trains one seed: several at once would turn convolutions into grouped ones, which are slow.
"""

import dataclasses
import functools
from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from experiments.config.errors import ConfigError
from experiments.config.run import NUMBERS, Run
from experiments.datasets.source import Dataset
from experiments.training import step as stepping
from experiments.training import variants
from experiments.training.spec import AXIS, ModelSpec, StepSpec, TrainState, model_spec

EVALUATION_BATCH = 1000
# XLA's own choice on a CPU is slower: docs/questions.md, "Speed on a CPU".
CPU_OPTIONS: dict[str, Any] = {
    "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,"
    "LIBRARY_FUSION_TYPE_REDUCE",
    "xla_cpu_opt_preset": 2,
}


def compiler_options(image_shape: tuple[int, int, int]) -> dict[str, Any] | None:
    """For `jax.jit`; on the digits, 8 pixels a side, a step is short as it is."""
    return CPU_OPTIONS if min(image_shape[:2]) >= 16 and jax.default_backend() == "cpu" else None


def resolve(name: str, devices: int = 1) -> str:
    """'auto' is the host loop on the CPU and on several devices, and scan elsewhere."""
    if name == "scan" and devices > 1:
        raise ConfigError(f"loop='scan' runs on one device, not on {devices}; leave it out.")
    if name != "auto":
        return name
    return "host" if devices > 1 or jax.default_backend() == "cpu" else "scan"


class Loop:
    """Steps of one resolved run on its prepared data; yields often, so that the caller can stop."""

    def __init__(self, run: Run, dataset: Dataset, name: str = "host"):
        self.name, self.seed, self.mesh = name, np.uint32(run.seed), make_mesh(run.devices)
        self.spec = StepSpec(model_spec(run, dataset), run.program())
        count = len(dataset.train_labels)
        self.share = count // run.devices
        self.steps_per_epoch = count // run.batch_size
        self.total_steps = run.epochs * self.steps_per_epoch
        numbers = {name: np.float32(getattr(run, name)) for name in NUMBERS}
        numbers["total_steps"] = np.float32(self.total_steps)
        self.hyper = replicated(self.mesh, numbers)
        rows = self.share * run.devices
        self.train = tuple(
            cut(self.mesh, x[:rows]) for x in (dataset.train_images, dataset.train_labels)
        )
        self.test = EvaluationSet(dataset.test_images, dataset.test_labels, self.mesh)
        self._step, self._order, self._scan = _programs(self.mesh, dataset.image_shape)

    def init(self) -> TrainState:
        """Drawn by every process alike, then laid on the devices."""
        state = stepping.jitted_init(self.spec.model, self.seed, self.spec.run.optimizer)
        state = state._replace(memory=variants.init(self.spec, state.params))
        return replicated(self.mesh, state)

    def epoch(self, state: TrainState, epoch: int, start: int) -> Iterator[tuple[TrainState, int]]:
        """Yields (state, steps taken since the last yield) from step `start` of the epoch on."""
        data = self.order(epoch), *self.train, self.hyper
        if self.name == "scan":
            steps = self.steps_per_epoch - start
            if steps:
                state = self._scan(self.spec, state, *data, steps)
                jax.block_until_ready(state.step)
                yield state, steps
            return
        previous, perturbs = None, variants.VARIANTS[self.spec.run.variant].perturbs
        for number in range(start, self.steps_per_epoch):
            # Decided here, since a convolution inside a condition is as slow as inside scan.
            perturb = perturbs(epoch * self.steps_per_epoch + number, self.total_steps)
            spec = dataclasses.replace(self.spec, perturb=perturb)
            state, loss = self._step(spec, state, *data)
            jax.block_until_ready(previous)  # the host is one step ahead of the device at most
            previous = loss
            yield state, 1

    def order(self, epoch: int) -> jax.Array:
        """Each device's order of its own images in an epoch, one device after the other."""
        return self._order(self.spec, self.seed, np.int32(epoch), self.share)

    def evaluate(self, state: TrainState) -> tuple[float, float]:
        """Mean loss and accuracy in percent over the test images."""
        return self.test.mean(self.spec.model, state.params, state.rest)


class EvaluationSet:
    """Images and labels on the devices in batches of one size; padding has the label -1."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, mesh: Mesh | None = None):
        self._mesh = make_mesh(1) if mesh is None else mesh
        self.count, devices = len(labels), self._mesh.size
        batches = -(-self.count // EVALUATION_BATCH)
        size = -(-self.count // (batches * devices)) * devices
        missing = batches * size - self.count
        images = np.pad(images, [(0, missing), (0, 0), (0, 0), (0, 0)])
        labels = np.pad(labels, (0, missing), constant_values=-1)
        self._batches = [
            (cut(self._mesh, images[i : i + size]), cut(self._mesh, labels[i : i + size]))
            for i in range(0, batches * size, size)
        ]

    def mean(self, spec: ModelSpec, params: Any, rest: Any) -> tuple[float, float]:
        """Mean cross-entropy and accuracy in percent."""
        evaluate = _evaluation(self._mesh)
        parts = [evaluate(spec, params, rest, *batch) for batch in self._batches]
        losses, correct = np.sum(jax.device_get(parts), axis=0)
        return float(losses) / self.count, 100 * float(correct) / self.count


def make_mesh(devices: int) -> Mesh:
    """A mesh of so many devices, those of every process side by side."""
    if devices > jax.device_count():
        raise ConfigError(
            f"devices={devices} is more than the {jax.device_count()} that JAX sees; on a CPU "
            f"XLA_FLAGS=--xla_force_host_platform_device_count={devices} makes virtual ones."
        )
    return Mesh(np.array(jax.devices()[:devices]), (AXIS,))


def cut(mesh: Mesh, array: np.ndarray) -> jax.Array:
    """Equal shares of the rows on the devices; a process reads its own devices' alone."""
    if mesh.size == 1:
        return jnp.asarray(array)
    sharding = NamedSharding(mesh, P(AXIS))
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


def replicated(mesh: Mesh, tree: Any) -> Any:
    """The same arrays on every device."""
    if mesh.size == 1:
        return jax.tree.map(jnp.asarray, tree)
    return jax.device_put(jax.device_get(tree), NamedSharding(mesh, P()))


@functools.lru_cache
def _evaluation(mesh: Mesh):
    whole = None if mesh.size == 1 else NamedSharding(mesh, P())
    return jax.jit(stepping.evaluate, static_argnums=0, out_shardings=whole)


@functools.lru_cache
def _programs(mesh: Mesh, image_shape: tuple[int, int, int]):
    """The step, an epoch's order and a scan over an epoch.

    One compilation for each spec; seeds, rho, learning rates and epochs are arguments.
    """
    compiled = partial(jax.jit, compiler_options=compiler_options(image_shape))

    def mapped(function, in_specs, out_specs):
        if mesh.size == 1:
            return function
        return jax.shard_map(function, mesh=mesh, in_specs=in_specs, out_specs=out_specs)

    def step(spec, *arguments):
        specs = (P(), P(AXIS), P(AXIS), P(AXIS), P()), (P(), P())
        return mapped(partial(stepping.train_step, spec), *specs)(*arguments)

    def order(spec, seed, epoch, share):
        own = partial(stepping.epoch_order, spec, count=share)
        return mapped(own, (P(), P()), P(AXIS))(seed, epoch)

    def scan(spec, state, order, images, labels, hyper, steps):
        def body(state, _):
            return stepping.train_step(spec, state, order, images, labels, hyper)

        return jax.lax.scan(body, state, None, length=steps)[0]

    return (
        compiled(step, static_argnums=0, donate_argnums=1),
        jax.jit(order, static_argnums=(0, 3)),
        jax.jit(scan, static_argnums=(0, 6), donate_argnums=1),
    )
