"""`benchmark loop`: how fast the loop that `train` uses is on this device.

Images and labels are random, since what a step costs does not depend on what they show; picking,
augmenting and normalising a batch is in it, as in training.
"""

import dataclasses
import statistics
from pathlib import Path
from typing import Any

import numpy as np

from experiments.benchmarks import timing
from experiments.benchmarks.problem import IMAGE_SHAPE
from experiments.benchmarks.timing import Record
from experiments.config.run import Run
from experiments.datasets import arrays
from experiments.reporting.summaries import Section
from experiments.training import loop, provenance, resolve

KIND = "benchmark_loop"


@dataclasses.dataclass(frozen=True)
class Loop:
    """How fast the loop that trains is here: images a second, an epoch, a step."""

    run: Run = Run(dataset="cifar10", model="resnet20", method="asam")
    """What is trained."""
    images: int = 50_000
    """Random images in an epoch."""
    rounds: int = 3
    """Epochs that are timed."""
    loop: str = "auto"
    """host, scan or auto."""
    workdir: Path = Path("runs")
    """Folder for results."""


def measure(options: Loop) -> Record:
    """The line of one configuration; the first epoch warms up."""
    config = resolve.resolve(options.run)
    rng = np.random.default_rng(0)
    images = rng.integers(256, size=(options.images, *IMAGE_SHAPE), dtype=np.uint8)
    labels = rng.integers(10, size=options.images, dtype=np.int32)
    data = arrays.from_arrays("random", 10, images, labels, images[:1], labels[:1])
    name = loop.resolve(options.loop, config.devices)
    ours = loop.Loop(config, data, name)
    state, epoch = ours.init(), 0

    def train() -> Any:
        nonlocal state, epoch
        for new, _ in ours.epoch(state, epoch, 0):
            state = new
        epoch += 1
        return state

    seconds = timing.in_turns({"epoch": timing.timed(train)}, options.rounds)["epoch"]
    return config.as_json() | dict(
        kind=KIND,
        images=options.images,
        loop=name,
        rounds=options.rounds,
        steps_per_epoch=ours.steps_per_epoch,
        epoch_seconds=statistics.median(seconds),
        **provenance.stamp(),
    )


def describe(record: Record) -> str:
    """What was measured on what."""
    seconds, steps = record["epoch_seconds"], record["steps_per_epoch"]
    return (
        f"Loop {record['loop']}, {timing.measured_on(record)}; the median of {record['rounds']} "
        f"epochs after a warm-up. An epoch of {record['images']:,} images takes {seconds:.2f} s, "
        f"{steps * record['batch_size'] / seconds:,.0f} images a second and "
        f"{1000 * seconds / steps:.2f} ms a step."
    )


def sections(workdir: Path) -> list[Section]:
    """A part of the report for each configuration that was measured."""
    return [
        timing.section(f"Speed of the loop: {title}", describe(lines[0]), lines)
        for title, lines in timing.grouped(workdir, KIND, "model", "method", "loop").items()
    ]


def run(options: Loop) -> None:
    """Measures, prints the sentence and stores the line."""
    record = measure(options)
    print(describe(record))
    names = ("model", "method", "batch_size", "dtype", "precision", "loop")
    timing.store(options.workdir, [record], *(record[name] for name in names))
