"""How every benchmark of speed times, and what each of its lines says of where it comes from."""

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from tqdm import tqdm

from experiments.reporting.summaries import Section, commands, flags
from experiments.reporting.tables import Record, grouped
from experiments.training import result_lines


class Program:
    """Compiled calls that, one after the other, make so many training steps on their own state.

    The state is donated, so that a step holds one copy of it, as in training.
    """

    def __init__(
        self, calls: tuple[Callable[..., Any], ...], state: Any, makes: int = 1, options: Any = None
    ):
        self.state, self.makes = jax.tree.map(jax.numpy.array, state), makes
        started = time.perf_counter()
        jitted = {call: jax.jit(call, donate_argnums=0) for call in dict.fromkeys(calls)}
        compiled = {call: f.lower(state).compile(options) for call, f in jitted.items()}
        self.compile_seconds = time.perf_counter() - started
        self.calls = [compiled[call] for call in calls]

    def __call__(self) -> float:
        """Takes the steps, waits for them and returns the seconds of one."""
        started = time.perf_counter()
        for call in self.calls:
            self.state = call(self.state)
        jax.block_until_ready(self.state)
        return (time.perf_counter() - started) / self.makes

    @property
    def flops(self) -> float:
        """Of one training step, as XLA counts them."""
        found: list[Any] = [call.cost_analysis() for call in self.calls]
        return sum(analysis["flops"] for analysis in found) / self.makes

    @property
    def temporary_bytes(self) -> int:
        found: list[Any] = [call.memory_analysis() for call in self.calls]
        return max(analysis.temp_size_in_bytes for analysis in found)


def in_turns(runs: dict[str, Program], rounds: int) -> dict[str, list[float]]:
    """Seconds of each in every round: what disturbs the machine hits all of them alike.

    Each runs twice and counts once. After another's step the memory is cut for other buffers, and
    the caches hold other arrays; a training step follows its own kind. Each round begins elsewhere.
    """
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()
    names = list(runs)
    for number in tqdm(range(rounds), desc="measuring", leave=False):
        first = number * len(names) // rounds
        for name in names[first:] + names[:first]:
            runs[name]()
            seconds[name].append(runs[name]())
    return seconds


def ratio(ours: list[float], theirs: list[float]) -> float:
    """The median over rounds of the ratio within a round, which slow drifts do not touch."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def store(workdir: Path, records: list[Record], *names: Any) -> None:
    """Writes the lines of one measurement, named by what was measured."""
    where = result_lines.platform(records[0])
    words = [records[0]["kind"], *map(str, names), *[where] * (where != "cpu")]
    result_lines.replace(workdir, records, f"{'_'.join(words)}.jsonl")
    print(f"\nResult lines: {workdir / '_'.join(words)}.jsonl")


def sections(
    workdir: Path,
    kind: str,
    title: Callable[[Record], str],
    describe: Callable[[list[Record]], str],
) -> list[Section]:
    """A part of the report for the stored lines of each title, with the command that makes them."""
    made = []
    for name, lines in grouped(result_lines.read_kind(workdir, kind), title).items():
        words = [*kind.split("_"), *flags(lines[0], ("model", "batch_size", "dtype", "repeats"))]
        made.append(Section(name, f"{describe(lines)}\n\n{commands(workdir, words)}"))
    return made
