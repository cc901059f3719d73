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
from experiments.reporting.summaries import Section
from experiments.training import provenance

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
    given = problem(options.model, options.images, training=False)

    def loss(params: Any, group: Any) -> jax.Array:
        return given.loss(params, given.rest, group)[0]

    gradient, forward = jax.jit(jax.value_and_grad(loss)), jax.jit(loss)
    ours = asam_jax.sharpness(loss, rho=0.5, m=options.m)

    def floor() -> Any:
        parts, kept = [], None
        for start in range(0, options.images, options.m):
            group = jax.tree.map(lambda a: a[start : start + options.m], given.batch)  # noqa: B023
            _, kept = gradient(given.params, group)
            parts.append(forward(given.params, group))
        return kept, parts

    runs = dict(floor=floor, sharpness=lambda: ours(given.params, given.batch))
    seconds = timing.in_turns({n: timing.timed(f) for n, f in runs.items()}, options.repeats)
    named = {n: v for n, v in dataclasses.asdict(options).items() if n != "workdir"}
    return provenance.stamp() | dict(
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
    title = "Cost of sharpness: {model}, m = {m}".format_map
    return timing.sections(workdir, KIND, title, lambda lines: describe(lines[0]))


def run(options: Sharpness) -> None:
    """Measures, prints the sentence and stores the line."""
    record = measure(options)
    print(describe(record))
    timing.store(options.workdir, [record], options.model, options.images, options.m)
