"""`benchmark loop`: how fast the loop that `train` uses is on this device, and where its time goes.

Images and labels are random, since what a step costs does not depend on what they show; picking,
augmenting and normalising a batch is in it, as in training. PyTorch beside it steps on one batch
that lies on the device already.
"""

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tqdm import tqdm

from experiments.benchmarks import torch_step, trace
from experiments.benchmarks.random_loop import RandomLoop
from experiments.config import run_config
from experiments.config.run_config import RunConfig
from experiments.reporting.precision import in_words
from experiments.reporting.summaries import Section, commands_of
from experiments.reporting.tables import markdown
from experiments.training import loops, provenance, result_lines

KIND = "benchmark_loop"
TRACED_STEPS = 20  # at least; whole epochs where one is one program
KERNELS = 12
# Steps of PyTorch in a round, and the methods that it has by ours.
TORCH_STEPS = 20
_TORCH = {"sgd": "SGD", "sam": "SAM", "asam": "ASAM, element-wise"}
_OURS = "JAX"


def measure(
    config: RunConfig,
    *,
    images: int,
    rounds: int,
    loop: str = "auto",
    traced: bool = False,
    torch: bool = False,
) -> list[dict[str, Any]]:
    """A line for our loop, and one for each way of PyTorch's; they take turns."""
    # What is missing is refused before anything runs.
    others, tf32 = _torch_steps(config) if torch else ({}, None)
    name = loops.resolve(loop, config.devices)
    ours = RandomLoop(config, images, name)
    ours.run(2)  # at least: the second step is given what the first one donated
    ours.restart()
    ours.evaluate()
    for one in others.values():
        one()
    epochs, evaluations = [], []
    seconds: dict[str, list[float]] = {form: [] for form in others}
    for _ in tqdm(range(rounds), desc="measuring", leave=False):
        epochs.append(_timed(ours.run))
        evaluations.append(_timed(ours.evaluate))
        for form, one in others.items():
            steps = min(ours.steps, TORCH_STEPS)
            seconds[form].append(statistics.mean(one() for _ in range(steps)))
    seconds = {_OURS: [epoch / ours.steps for epoch in epochs]} | seconds
    shared = config.as_json() | {
        "kind": KIND,
        "precision": config.precision,
        "images": images,
        "rounds": rounds,
        "loop": name,
        "command": provenance.command(),
        "versions": provenance.versions() | (torch_step.versions() if torch else {}),
        "device": provenance.device(),
    }
    records = []
    for form, each in seconds.items():
        step = statistics.median(each)
        records.append(
            {
                "form": form,
                "step_seconds": step,
                "step_seconds_of_rounds": each,
                "images_per_second": config.batch_size / step,
                "time_over_ours": statistics.median(
                    a / b for a, b in zip(each, seconds[_OURS], strict=True)
                ),
                **({} if form == _OURS else {"tf32": tf32}),
            }
            | shared
        )
    records[0] |= {
        "steps_per_epoch": ours.steps,
        "epoch_seconds": statistics.median(epochs),
        "evaluation_seconds": statistics.median(evaluations),
        "test_images": ours.test_images,
    }
    if traced:
        records[0]["trace"] = _traced(ours)
    return records


def _timed(run: Callable[[], Any]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def _torch_steps(config: RunConfig) -> tuple[dict[str, Callable[[], float]], bool]:
    """PyTorch's step, eager and compiled, and whether it computes in TF32."""
    machine = torch_step.Machine(config.dtype, config.precision)
    rho, adaptive = torch_step.METHODS[_TORCH[config.method]]
    images, labels = machine.batch(config.batch_size)
    made = {}
    for compiled in (False, True):
        how = (rho and config.rho, adaptive)
        network = machine.network(config.model)
        one = torch_step.step(machine, network, images, labels, *how, compiled=compiled)
        made[f"PyTorch, {'compiled' if compiled else 'eager'}"] = one
    return made, machine.tf32


def _traced(ours: RandomLoop) -> dict[str, Any]:
    taken = []
    profile = trace.record(lambda: taken.append(ours.run(TRACED_STEPS)))
    (steps,) = taken
    return {
        "steps": steps,
        "seconds": profile.seconds,
        "busy_seconds": profile.busy_seconds,
        "idle": profile.idle,
        "launches_per_step": profile.launches / steps,
        "operations_seconds": sum(kernel.seconds for kernel in profile.kernels),
        "kernels": [kernel._asdict() for kernel in profile.kernels[:KERNELS]],
    }


def describe(records: list[dict[str, Any]]) -> str:
    """What was measured on what, the table, and where the time goes if it was traced."""
    ours = records[0]
    versions, device = ours["versions"], ours["device"]
    rows = [
        [
            record["form"],
            f"{1000 * record['step_seconds']:.2f}",
            f"{record['images_per_second']:,.0f}",
            f"{record['time_over_ours']:.2f}",
        ]
        for record in records
    ]
    table = markdown(["form", "ms a step", "images a second", "time / JAX's"], rows)
    text = (
        f"{ours['model']}, {ours['method']}, batch {ours['batch_size']}, {in_words(ours)}, loop "
        f"{ours['loop']}, {device['kind']} ({device['processors']} processors), JAX "
        f"{versions['jax']}; medians over {ours['rounds']} rounds after a warm-up. An epoch of "
        f"{ours['images']:,} images takes {ours['epoch_seconds']:.2f} s, a test of "
        f"{ours['test_images']:,} {ours['evaluation_seconds']:.2f} s.\n\n{table}"
    )
    if len(records) > 1:
        tf32 = "on" if records[1]["tf32"] else "off"
        text += (
            f"\n\nPyTorch {versions['torch']} on the same device, {ours['dtype']}, TF32 {tf32}, "
            "channels last, synchronised after each step; its batch lies ready, ours is picked and "
            "augmented within the step."
        )
    return text + (f"\n\n{_where(ours['trace'])}" if "trace" in ours else "")


def _where(found: dict[str, Any]) -> str:
    """Operations by total time, launches and idling."""
    whole, steps = found["operations_seconds"], found["steps"]
    rows = [
        [
            kernel["name"],
            f"{kernel['launches'] / steps:.4g}",
            f"{1000 * kernel['seconds'] / steps:.3f}",
            f"{100 * kernel['seconds'] / whole:.1f}%",
        ]
        for kernel in found["kernels"]
    ]
    header = ["operation", "a step", "ms a step", "share of the operations' time"]
    return (
        f"Traced over {steps} steps: {found['launches_per_step']:.4g} launches a step, and nothing "
        f"ran for {100 * found['idle']:.1f}% of the time.\n\n{markdown(header, rows)}"
    )


def sections(workdir: Path) -> list[Section]:
    """A part of the report for each file of lines."""
    measured: dict[tuple, list[dict[str, Any]]] = {}
    for record in result_lines.read_kind(workdir, KIND):
        measured.setdefault(_name(record), []).append(record)
    return [
        Section(
            f"Speed of the loop: {rows[0]['model']}, {rows[0]['method']}, batch "
            f"{rows[0]['batch_size']}, {in_words(rows[0])}, {rows[0]['device']['kind']}, "
            f"loop {rows[0]['loop']}",
            f"{describe(rows)}\n\n{commands_of(rows[:1])}",
        )
        for rows in measured.values()
    ]


def _name(record: dict[str, Any]) -> tuple[str, ...]:
    names = ("model", "method", "batch_size", "dtype", "precision", "loop")
    return *(str(record[name]) for name in names), result_lines.platform(record)


def run(
    workdir: Path,
    *,
    model: str,
    method: str,
    dtype: str,
    precision: str | None,
    batch_size: int,
    images: int,
    rounds: int,
    loop: str,
    traced: bool,
    torch: bool,
) -> None:
    """Measures, prints the table and stores the lines."""
    config = run_config.make(
        "cifar10", method, model=model, dtype=dtype, precision=precision, batch_size=batch_size
    )
    records = measure(config, images=images, rounds=rounds, loop=loop, traced=traced, torch=torch)
    name = f"{KIND}_{'_'.join(_name(records[0]))}.jsonl"
    result_lines.replace(workdir, records, name)
    print(f"{describe(records)}\n\nResult lines: {workdir / name}")
