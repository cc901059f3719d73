"""`benchmark loop`: how fast the loop that `train` uses is on this device.

Images and labels are random, since what a step costs does not depend on what they show; picking,
augmenting and normalising a batch is in it, as in training. PyTorch beside it steps on one batch
that lies on the device already.
"""

import dataclasses
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from experiments.benchmarks import timing, torch_peers
from experiments.benchmarks.problem import IMAGE_SHAPE
from experiments.benchmarks.timing import Record
from experiments.config.run import Run
from experiments.datasets import arrays
from experiments.reporting.summaries import Section, commands_of
from experiments.reporting.tables import markdown
from experiments.training import loop, resolve

KIND = "benchmark_loop"
OURS = "JAX"
TORCH_STEPS = 20  # in a round


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
    torch: bool = False
    """Also PyTorch's step, on the kind of device that JAX has."""
    workdir: Path = Path("runs")
    """Folder for results."""


def measure(options: Loop) -> list[Record]:
    """A line for our loop, and one for each of PyTorch's steps; they take turns."""
    config = resolve.resolve(options.run)
    others, tf32 = _torch_steps(config) if options.torch else ({}, None)
    rng, tests = np.random.default_rng(0), min(options.images, 10_000)

    def drawn(count: int) -> tuple[np.ndarray, np.ndarray]:
        pictures = rng.integers(256, size=(count, *IMAGE_SHAPE), dtype=np.uint8)
        return pictures, rng.integers(10, size=count, dtype=np.int32)

    whole = arrays.from_arrays("random", 10, *drawn(options.images), *drawn(tests))
    name = loop.resolve(options.loop, config.devices or 1)
    ours = loop.Loop(config, whole, name)
    state, epoch = ours.init(), 0

    def train() -> Any:
        nonlocal state, epoch
        for new, _ in ours.epoch(state, epoch, 0):
            state = new
        epoch += 1
        return state

    ours.evaluate(state)
    runs = {OURS: timing.timed(train)} | others
    seconds = timing.in_turns(runs, options.rounds)
    epochs = seconds[OURS]
    seconds[OURS] = [one / ours.steps_per_epoch for one in epochs]
    evaluate = timing.timed(lambda: ours.evaluate(state))
    shared = config.as_json() | timing.origin(kind=KIND, images=options.images, loop=name)
    if options.torch:
        shared["versions"] |= torch_peers.versions()
    records = []
    for form, each in seconds.items():
        step = statistics.median(each)
        line = dict(form=form, step_seconds=step, images_per_second=config.batch_size / step)
        line |= dict(step_seconds_of_rounds=each, rounds=options.rounds)
        line |= dict(time_over_ours=timing.ratio(each, seconds[OURS]))
        records.append(line | ({} if form == OURS else {"tf32": tf32}) | shared)
    records[0] |= dict(steps_per_epoch=ours.steps_per_epoch, test_images=tests)
    records[0] |= dict(epoch_seconds=statistics.median(epochs), evaluation_seconds=evaluate())
    return records


def _torch_steps(config: Run) -> tuple[dict[str, Callable[[], float]], bool]:
    """PyTorch's step, eager and compiled, and whether it computes in TF32."""
    machine = torch_peers.Machine(config.dtype, config.precision)
    method = {"sgd": "SGD", "sam": "SAM", "asam": "ASAM, element-wise"}[config.method]
    rho, adaptive = torch_peers.METHODS[method]
    batch = machine.batch(config.batch_size)
    made = {}
    for compiled in (False, True):
        network = machine.network(config.model)
        how: Any = (rho and config.rho, adaptive)
        one = torch_peers.step(machine, network, *batch, *how, compiled=compiled)
        mean = lambda one=one: statistics.mean(one() for _ in range(TORCH_STEPS))  # noqa: E731
        made[f"PyTorch, {'compiled' if compiled else 'eager'}"] = mean
    return made, machine.tf32


def describe(records: list[Record]) -> str:
    """What was measured on what, and the table."""
    ours, rows = records[0], []
    for record in records:
        cells = [f"{1000 * record['step_seconds']:.2f}", f"{record['images_per_second']:,.0f}"]
        rows.append([record["form"], *cells, f"{record['time_over_ours']:.2f}"])
    table = markdown(["step", "ms", "images a second", "time / JAX's"], rows)
    text = (
        f"Loop {ours['loop']}, {timing.measured_on(ours)}; medians over {ours['rounds']} rounds "
        f"after a warm-up. An epoch of {ours['images']:,} images takes "
        f"{ours['epoch_seconds']:.2f} s, a test of {ours['test_images']:,} "
        f"{ours['evaluation_seconds']:.2f} s.\n\n{table}"
    )
    if len(records) > 1:
        text += (
            f"\n\nPyTorch {ours['versions']['torch']} on the same device, {ours['dtype']}, TF32 "
            f"{'on' if records[1]['tf32'] else 'off'}, channels last, synchronised after each "
            "step; its batch lies ready, ours is picked and augmented within the step."
        )
    return text


def sections(workdir: Path) -> list[Section]:
    """A part of the report for each configuration that was measured."""
    return [
        Section(f"Speed of the loop: {title}", f"{describe(rows)}\n\n{commands_of(rows[:1])}")
        for title, rows in timing.grouped(workdir, KIND, "model", "method", "loop").items()
    ]


def run(options: Loop) -> None:
    """Measures, prints the table and stores the lines."""
    records = measure(options)
    print(describe(records))
    names = ("model", "method", "batch_size", "dtype", "precision", "loop")
    timing.store(options.workdir, records, *(records[0][name] for name in names))
