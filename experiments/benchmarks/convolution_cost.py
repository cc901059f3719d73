"""`benchmark convolutions`: how much of a step on a CPU its convolutions take, XLA's and PyTorch's.

XLA hands them to one of two libraries, Eigen (under the options of training) or YNNPACK (by
default), PyTorch to oneDNN. Each is timed alone, its arrays in place, in turn with the whole step:
what XLA's faster library takes for them is what no program of ours can go below.
"""

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from tqdm import tqdm

from experiments.benchmarks import compared_steps, convolutions, torch_convolutions, torch_step
from experiments.benchmarks.convolutions import PARTS, Convolution
from experiments.benchmarks.step_cost import Timed
from experiments.config.errors import ConfigError
from experiments.reporting.summaries import Section, commands_of
from experiments.reporting.tables import markdown
from experiments.training import cpu, provenance, result_lines

KIND = "benchmark_convolutions"
EIGEN, YNNPACK, TORCH = "XLA, Eigen", "XLA, YNNPACK", "PyTorch"
STEP = "SGD's step"
Run = Callable[[], float]


def measure(model: str, batch_size: int, repeats: int, torch: bool) -> list[dict[str, Any]]:
    """One line for each part of each convolution, and one for SGD's step; they take turns.

    Raises:
      ConfigError: this is no CPU, or PyTorch is asked for and not there.
    """
    if jax.default_backend() != "cpu":
        raise ConfigError(
            "benchmark convolutions compares a CPU's libraries; for a trace of an accelerator's "
            "kernels run benchmark loop --trace."
        )
    machine = torch_step.Machine() if torch else None
    found = convolutions.of_network(model, batch_size)
    made: dict[tuple[Convolution | None, str], dict[str, Run]] = {
        (one, part): runs
        for one in tqdm(found, desc="compiling", leave=False)
        for part, runs in _runs(one, machine).items()
        # Nothing asks for the gradient of the images.
        if part != PARTS[1] or one.inputs != compared_steps.IMAGE_SHAPE[-1]
    }
    step = compared_steps.exact_steps(compared_steps.problem(model, batch_size, "float32"))[0]
    made[None, STEP] = {EIGEN: Timed(step).run}
    if torch:
        made[None, STEP][TORCH] = torch_step.steps(model, batch_size)[torch_step.name_of("SGD")]
    seconds = {key: {name: [] for name in runs} for key, runs in made.items()}
    for _ in tqdm(range(repeats), desc="measuring", leave=False):
        for key, runs in made.items():
            for name, run in runs.items():
                run()  # brings its arrays into the caches, as an operation before it would
                seconds[key][name].append(run())
    shared = {
        "kind": KIND,
        "model": model,
        "batch_size": batch_size,
        "repeats": repeats,
        "command": provenance.command(),
        "versions": provenance.versions() | (torch_step.versions() if torch else {}),
        "device": provenance.device(),
    }
    return [
        {
            "form": part,
            "convolution": None if one is None else str(one),
            "count": 1 if one is None else found[one],
            "seconds": {name: statistics.median(each) for name, each in runs.items()},
        }
        | shared
        for (one, part), runs in seconds.items()
    ]


def _runs(one: Convolution, machine: torch_step.Machine | None) -> dict[str, dict[str, Run]]:
    """For each part, a function a library that computes it and returns its seconds."""
    options = {EIGEN: cpu.compiler_options(compared_steps.IMAGE_SHAPE), YNNPACK: None}
    made: dict[str, dict[str, Run]] = {}
    for part, (function, arguments) in convolutions.parts(one).items():
        made[part] = {}
        for name, chosen in options.items():
            made[part][name] = _timed(function, arguments, chosen)
    if machine is not None:
        for part, function in torch_convolutions.parts(machine, one).items():
            made[part][TORCH] = torch_convolutions.timed(function)
    return made


def _timed(
    function: Callable[..., jax.Array], arguments: tuple[jax.Array, ...], options: Any
) -> Run:
    """Writes into memory that is there already, as within a step's one block of it."""

    def into(out, *arguments):
        del out
        return function(*arguments)

    out = function(*arguments)
    jitted = jax.jit(into, donate_argnums=0, keep_unused=True)
    program = jitted.lower(out, *arguments).compile(options)

    def run() -> float:
        nonlocal out
        started = time.perf_counter()
        out = jax.block_until_ready(program(out, *arguments))
        return time.perf_counter() - started

    return run


def totals(records: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Seconds by part and library, all of a network's convolutions together.

    "the faster" takes of XLA's two libraries the faster one for each convolution.
    """
    found: dict[str, dict[str, float]] = {}
    for record in records:
        if record["form"] == STEP:
            continue
        seconds = record["seconds"]
        best = min(seconds[EIGEN], seconds[YNNPACK])
        row = found.setdefault(record["form"], {})
        for name, value in (seconds | {"the faster": best}).items():
            row[name] = row.get(name, 0.0) + record["count"] * value
    return found


def describe(records: list[dict[str, Any]]) -> str:
    """The sums in a table, and what they say of the step."""
    first = records[0]
    (step,) = [record["seconds"] for record in records if record["form"] == STEP]
    rows = totals(records)
    columns = [EIGEN, YNNPACK, "the faster", *([TORCH] if TORCH in step else [])]
    sums = {name: sum(row[name] for row in rows.values()) for name in columns}
    body = [
        *([part, *(_ms(row[name]) for name in columns)] for part, row in rows.items()),
        ["all convolutions", *(_ms(sums[name]) for name in columns)],
        [STEP, _ms(step[EIGEN]), "-", "-", *([_ms(step[TORCH])] if TORCH in step else [])],
    ]
    text = (
        f"{first['model']}, batch {first['batch_size']}, float32, {first['device']['kind']} "
        f"({first['device']['processors']} processors), JAX {first['versions']['jax']}"
        f"{_torch_of(first)}; milliseconds, medians over {first['repeats']} rounds, each "
        "convolution alone with its arrays in place, times its number in the network.\n\n"
        f"{markdown(['', *columns], body)}"
    )
    if TORCH not in step:
        return text
    floor = sums["the faster"]
    return (
        f"{text}\n\nXLA's faster library takes {floor / sums[TORCH]:.2f} times as long for the "
        f"convolutions as PyTorch's. They alone are {floor / step[TORCH]:.2f} of PyTorch's whole "
        f"step; what is left of it is {_ms(step[TORCH] - sums[TORCH])} ms in PyTorch and "
        f"{_ms(step[EIGEN] - sums[EIGEN])} ms in XLA."
    )


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.1f}"


def _torch_of(record: dict[str, Any]) -> str:
    version = record["versions"].get("torch")
    return f", PyTorch {version}, channels last" if version else ""


def sections(workdir: Path) -> list[Section]:
    """A part of the report for each network and batch size that was measured."""
    measured: dict[str, list[dict[str, Any]]] = {}
    for record in result_lines.read_kind(workdir, KIND):
        title = f"{record['model']}, batch {record['batch_size']}"
        measured.setdefault(title, []).append(record)
    return [
        Section(
            f"Convolutions of a step on a CPU: {title}",
            f"{describe(records)}\n\n{commands_of(records[:1])}",
        )
        for title, records in measured.items()
    ]


def run(workdir: Path, model: str, batch_size: int, repeats: int, torch: bool = False) -> None:
    """Measures, prints the table and stores the lines."""
    records = measure(model, batch_size, repeats, torch)
    name = f"{KIND}_{model}_{batch_size}.jsonl"
    result_lines.replace(workdir, records, name)
    print(f"{describe(records)}\n\nResult lines: {workdir / name}")
