"""`benchmark sharpness`: one-step sharpness of a whole set, relative to what it cannot do without.

That floor is one gradient and one forward pass of every image, by the same groups of m.
"""

import dataclasses
import statistics
from pathlib import Path
from typing import Any

import jax

import asam_jax
from experiments.benchmarks import timing
from experiments.benchmarks.problem import problem
from experiments.benchmarks.timing import Record
from experiments.config.errors import ConfigError
from experiments.reporting.summaries import Section, commands_of
from experiments.training import result_lines

KIND = "benchmark_sharpness"


@dataclasses.dataclass(frozen=True)
class Sharpness:
    """What one-step sharpness costs, relative to a gradient and a forward pass."""

    model: str = "resnet8"
    """See the command models."""
    images: int = 10_000
    """Images in the set."""
    m: int = 8
    """Images in a group; must divide the set."""
    repeats: int = 3
    """Rounds of both."""
    workdir: Path = Path("runs")
    """Folder for results."""


def measure(options: Sharpness) -> Record:
    """The line of one set; the two take turns, so that what disturbs the machine hits both."""
    images, m = options.images, options.m
    if images % m:
        raise ConfigError(f"m={m} does not divide the {images} images; choose an --m that does.")
    given = problem(options.model, images, training=False)
    params, batch = given.params, given.batch

    def loss(params: Any, group: Any) -> jax.Array:
        return given.loss(params, given.rest, group)[0]

    gradient, forward = jax.jit(jax.value_and_grad(loss)), jax.jit(loss)
    ours = asam_jax.sharpness(loss, rho=0.5, m=m)

    def floor() -> Any:
        parts, kept = [], None
        for start in range(0, images, m):
            group = jax.tree.map(lambda a: a[start : start + m], batch)  # noqa: B023
            _, kept = gradient(params, group)
            parts.append(forward(params, group))
        return kept, parts

    runs = dict(floor=timing.timed(floor), sharpness=timing.timed(lambda: ours(params, batch)))
    seconds = timing.in_turns(runs, options.repeats)
    named = dict(model=options.model, images=images, m=m, repeats=options.repeats)
    return timing.origin(
        kind=KIND,
        **named,
        seconds=statistics.median(seconds["sharpness"]),
        floor_seconds=statistics.median(seconds["floor"]),
        time_over_floor=timing.ratio(seconds["sharpness"], seconds["floor"]),
    )


def describe(record: Record) -> str:
    """What was measured on what."""
    return (
        f"One-step sharpness of {record['model']} on {record['images']:,} images in groups of "
        f"{record['m']} takes {record['seconds']:.1f} s, {record['time_over_floor']:.2f} times a "
        f"gradient and a forward pass of each group alone; {timing.measured_on(record)}, medians "
        f"over {record['repeats']} rounds."
    )


def sections(workdir: Path) -> list[Section]:
    """A part of the report for each set that was measured."""
    return [
        Section(
            f"Cost of sharpness: {record['model']}, m = {record['m']}",
            f"{describe(record)}\n\n{commands_of([record])}",
        )
        for record in result_lines.read_kind(workdir, KIND)
    ]


def run(options: Sharpness) -> None:
    """Measures, prints the sentence and stores the line."""
    record = measure(options)
    print(describe(record))
    timing.store(options.workdir, [record], options.model, options.images, options.m)
