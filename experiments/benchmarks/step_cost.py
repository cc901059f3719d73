"""`benchmark step`: what a step of each form costs, relative to SGD and to two bare gradients."""

import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
from tqdm import tqdm

from experiments.benchmarks import compared_steps, torch_step
from experiments.benchmarks.cheaper_steps import cheaper_steps
from experiments.benchmarks.compared_steps import ComparedStep
from experiments.config.run_config import precision_of_jax
from experiments.reporting.precision import in_words
from experiments.reporting.summaries import Section, commands_of
from experiments.reporting.tables import markdown
from experiments.training import cpu, provenance, result_lines

KIND = "benchmark_step"
INPUT = "input and augmentation"


class Timed:
    """A compiled step, run call by call on its own state."""

    def __init__(self, step: ComparedStep):
        self.step = step
        options = cpu.compiler_options(compared_steps.IMAGE_SHAPE)  # those of training
        programs = {
            call: jax.jit(call, donate_argnums=0).lower(step.state).compile(options)
            for call in dict.fromkeys(step.calls)
        }
        self.compiled = [programs[call] for call in step.calls]
        self.state = step.state
        self.seconds: list[float] = []

    def run(self) -> float:
        """Seconds of a training step, the mean where several make a round."""
        started = time.perf_counter()
        for program in self.compiled:
            self.state = program(self.state)
        jax.block_until_ready(self.state)
        return (time.perf_counter() - started) / self.step.makes

    @property
    def flops(self) -> float | None:
        """Of one training step, as XLA counts them."""
        counts = [(program.cost_analysis() or {}).get("flops") for program in self.compiled]
        known = [count for count in counts if count is not None]
        return sum(known) / self.step.makes if len(known) == len(counts) else None

    @property
    def temporary_bytes(self) -> int | None:
        analyses = [program.memory_analysis() for program in self.compiled]
        known = [analysis.temp_size_in_bytes for analysis in analyses if analysis is not None]
        return max(known) if len(known) == len(analyses) else None


class TimedElsewhere:
    """A step that is no program of XLA's, with nothing known of it but its time."""

    flops = temporary_bytes = None

    def __init__(self, name: str, run: Callable[[], float]):
        self.step = ComparedStep(name, (), ())
        self.run = run
        self.seconds: list[float] = []


def measure(
    model: str,
    batch_size: int,
    dtype: str,
    repeats: int,
    torch: bool,
    cheap: Sequence[str] | None = None,
) -> list[dict[str, Any]]:
    """One line a step; they take turns, so that what disturbs the machine hits them alike.

    `cheap` names those of the cheap and refined forms of a step that are measured; None: all.
    """
    elsewhere = torch_step.steps(model, batch_size, dtype) if torch else {}  # refused at once
    given = compared_steps.problem(model, batch_size, dtype)
    parts = [
        compared_steps.bare_gradient(given),
        compared_steps.bare_update(given),
        compared_steps.input_pipeline(batch_size),
    ]
    made = [*compared_steps.exact_steps(given), *cheaper_steps(given, cheap), *parts]
    copies = {step.name: _bytes(step.state) for step in made}
    timed: list[Timed | TimedElsewhere] = [
        Timed(step) for step in tqdm(made, desc="compiling", leave=False)
    ]
    shared = {
        "kind": KIND,
        "model": model,
        "batch_size": batch_size,
        "dtype": dtype,
        "precision": precision_of_jax(),
        "repeats": repeats,
        "command": provenance.command(),
        "versions": provenance.versions(),
        "device": provenance.device(),
    }
    if torch:
        shared["versions"] |= torch_step.versions()
        shared["torch_tf32"] = torch_step.Machine(dtype, shared["precision"]).tf32
        timed += [TimedElsewhere(name, run) for name, run in elsewhere.items()]
    for one in timed:
        one.run()
    for number in tqdm(range(repeats), desc="measuring", leave=False):
        first = number * len(timed) // repeats  # each round begins elsewhere
        for one in timed[first:] + timed[:first]:
            # A training step follows its own kind. After another's the memory is cut for other
            # buffers, and after PyTorch's, which SGD's always followed, for another library.
            one.run()
            one.seconds.append(one.run())
    kept = {
        step.name: (copies[step.name] - copies["SGD"]) / _bytes(given.params)
        for step in made
        if step not in parts
    }
    return [_line(one, timed, kept.get(one.step.name)) | shared for one in timed]


def _line(one: Timed | TimedElsewhere, timed: list, copies: float | None) -> dict[str, Any]:
    """What one step was measured to cost, beside SGD, its floor and PyTorch."""
    seconds = {other.step.name: other.seconds for other in timed}
    floors = [
        2 * gradient + update
        for gradient, update in zip(seconds["one gradient"], seconds["base update"], strict=True)
    ]
    return {
        "form": one.step.name,
        "seconds": statistics.median(one.seconds),
        "time_over_sgd": _median_ratio(one.seconds, seconds["SGD"]),
        "time_over_two_gradients_and_update": _median_ratio(one.seconds, floors),
        "time_over_torch": _over_torch(one.step.name, seconds),
        "flops": one.flops,
        "flops_over_sgd": _ratio(one.flops, timed[0].flops),
        "temporary_bytes": one.temporary_bytes,
        "temporary_over_sgd": _ratio(one.temporary_bytes, timed[0].temporary_bytes),
        "parameter_copies": copies,
    }


def _over_torch(name: str, seconds: dict[str, list[float]]) -> float | None:
    other = seconds.get(torch_step.name_of(name))
    return None if other is None else _median_ratio(seconds[name], other)


def _bytes(tree) -> int:
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))


def _median_ratio(ours: list[float], theirs: list[float]) -> float:
    """The median over rounds of the ratio within a round, which slow drifts do not touch."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def _ratio(ours: float | None, theirs: float | None) -> float | None:
    return None if ours is None or not theirs else ours / theirs


def table(records: list[dict[str, Any]]) -> str:
    """The steps, without the bare parts that they are measured against."""
    torch = any(record["time_over_torch"] for record in records)
    rows = [
        [
            record["form"],
            _number(record["flops_over_sgd"], 3),
            _number(record["temporary_over_sgd"], 3),
            _number(record["parameter_copies"], 1),
            _number(record["time_over_sgd"], 2),
            _number(record["time_over_two_gradients_and_update"], 3),
            f"{1000 * record['seconds']:.1f}",
            *([_number(record["time_over_torch"], 2)] if torch else []),
        ]
        for record in records
        if record["form"] not in ("one gradient", "base update", INPUT)
    ]
    header = [
        "step",
        "FLOPs / SGD",
        "temporary memory / SGD",
        "copies of the parameters kept, beyond SGD's",
        "time / SGD",
        "time / (2 gradients + update)",
        "ms",
        *(["time / PyTorch's"] if torch else []),
    ]
    return markdown(header, rows)


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def describe(records: list[dict[str, Any]]) -> str:
    """What was measured on what, the table, and the share of the input."""
    first = records[0]
    (share,) = [r["time_over_sgd"] for r in records if r["form"] == INPUT]
    torch = first["versions"].get("torch")
    beside = f" PyTorch {torch}, channels last, in the same rounds." if torch else ""
    return (
        f"{first['model']}, batch {first['batch_size']}, {in_words(first)}, "
        f"{first['device']['kind']} ({first['device']['processors']} processors), JAX "
        f"{first['versions']['jax']}; medians over {first['repeats']} rounds.{beside}\n\n"
        f"{table(records)}\n\n"
        f"Picking, augmenting and normalising a batch takes {100 * share:.1f}% of SGD's step."
    )


def sections(workdir: Path) -> list[Section]:
    """A part of the report for each network, batch size and dtype that was measured."""
    measured: dict[str, list[dict[str, Any]]] = {}
    for record in result_lines.read_kind(workdir, KIND):
        title = f"{record['model']}, batch {record['batch_size']}, {in_words(record)}"
        if result_lines.platform(record) != "cpu":
            title += f", {record['device']['kind']}"
        measured.setdefault(title, []).append(record)
    return [
        Section(f"Cost of a step: {title}", f"{describe(records)}\n\n{commands_of(records[:1])}")
        for title, records in measured.items()
    ]


def run(
    workdir: Path, model: str, batch_size: int, dtype: str, repeats: int, torch: bool = False
) -> None:
    """Measures, prints the table and stores the lines."""
    records = measure(model, batch_size, dtype, repeats, torch)
    here = result_lines.platform(records[0])
    name = f"{KIND}_{model}_{batch_size}_{dtype}{'' if here == 'cpu' else f'_{here}'}.jsonl"
    result_lines.replace(workdir, records, name)
    print(f"{describe(records)}\n\nResult lines: {workdir / name}")
