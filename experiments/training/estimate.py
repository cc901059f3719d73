"""How long a list of runs will take, said before it starts."""

import itertools
import statistics
import time
from collections.abc import Collection
from typing import Any

import jax

from experiments.config.run_config import LATER, RunConfig
from experiments.config.step_forms import EXACT, gradients_per_step
from experiments.datasets import arrays
from experiments.datasets.arrays import Dataset
from experiments.training import loops, provenance
from experiments.training.spec import spec_of

# What is timed at least; the first of the loop's yields compiles.
_STEPS, _YIELDS = 3, 2
# What decides a gradient's time.
_COST = ("model", "batch_size", "dtype", "precision")


def gradients(config: RunConfig, dataset: Dataset) -> float:
    """Gradient evaluations of one run, the unit of cost."""
    size = len(dataset.train_labels) if config.subset is None else config.subset
    kept = size - round(size * config.validation)
    return (
        config.epochs
        * spec_of(config, dataset).steps(kept)
        * gradients_per_step(config.method, config.variant)
    )


def describe(
    configs: Collection[RunConfig],
    datasets: dict[str, Dataset],
    finished: Collection[dict[str, Any]],
    loop_name: str,
) -> str:
    """The plan, a line for each network, and the time it will take in the loop of that name."""
    lines, total = [], 0.0
    for key, group in _by_cost(configs).items():
        count = sum(gradients(config, datasets[config.dataset]) for config in group)
        seconds = _from_results(group[0], finished)
        source = "from finished runs"
        if seconds is None:
            seconds = _measured(group[0], datasets[group[0].dataset], loop_name)
            source = "from a few steps"
        total += count * seconds
        model, batch_size, *_ = key
        lines.append(
            f"  {model}: {len(group)} runs, {count:,.0f} gradients of batch {batch_size}, "
            f"{seconds:.3f} s each ({source})"
        )
    return "\n".join(["Plan:", *lines, f"Estimated time: {duration(total)}"])


def duration(seconds: float) -> str:
    """'2 h 05 min', '3 min 20 s' or '40 s'."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def _by_cost(configs: Collection[RunConfig]) -> dict[tuple, list[RunConfig]]:
    found: dict[tuple, list[RunConfig]] = {}
    for config in configs:
        found.setdefault(tuple(getattr(config, name) for name in _COST), []).append(config)
    return found


def _from_results(config: RunConfig, finished: Collection[dict[str, Any]]) -> float | None:
    """Seconds a gradient in finished runs of the same network on the same device."""
    device = provenance.device()
    rates = [
        record["wall_seconds"]
        / record.get("seeds_in_program", 1)  # of older lines
        / (record["epochs"] * (record["train_images"] // record["batch_size"]))
        / gradients_per_step(record["method"], record.get("variant", EXACT))
        for record in finished
        if all(record.get(n, LATER.get(n)) == getattr(config, n) for n in _COST)
        and record["device"] == device
    ]
    return statistics.median(rates) if rates else None


def _measured(config: RunConfig, dataset: Dataset, loop_name: str) -> float:
    """Seconds a gradient in a few steps of the loop, whose programs the run uses again."""
    loop = loops.of_run(loop_name, config, arrays.prepare(dataset, config))
    state, times, steps = loop.init(), [], 0
    for epoch in itertools.count():
        started = time.perf_counter()
        for state, taken in loop.epoch(state, epoch, 0):  # noqa: B020
            jax.block_until_ready(state)
            times.append((time.perf_counter() - started) / taken)
            steps += taken
            if steps >= _STEPS and len(times) >= _YIELDS:
                return min(times) / gradients_per_step(config.method, config.variant)
            started = time.perf_counter()
    raise AssertionError("an epoch has a step at least")
