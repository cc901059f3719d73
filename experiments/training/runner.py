"""Runs a list of configurations in a workdir: skips the finished, writes each one's result."""

import contextlib
import dataclasses
import shutil
import sys
from pathlib import Path
from typing import Any

import jax

from experiments.config.run_config import RunConfig
from experiments.datasets import arrays
from experiments.datasets.arrays import Dataset
from experiments.training import estimate, loops, processes, provenance, result_lines, weights
from experiments.training.checkpoint import Checkpoints
from experiments.training.lock import workdir_lock
from experiments.training.progress import Progress, name_of
from experiments.training.stop import StopRequest
from experiments.training.train import train


@dataclasses.dataclass(frozen=True)
class Options:
    """How to run, none of which changes a result."""

    workdir: Path = Path("runs")
    data_dir: Path | None = None
    time_limit: float | None = None
    checkpoint_seconds: float = 60.0
    loop: str = "auto"
    # Runs that belong to a figure have result lines, and a file, of their own kind.
    kind: str = result_lines.RUN
    # Epochs between two that leave their weights in the workdir; the last does, too. None: none.
    keep_every: int | None = None

    @property
    def checkpoints(self) -> Path:
        folder = self.workdir / "checkpoints"
        return folder if self.kind == result_lines.RUN else folder / self.kind


def run_all(
    configs: list[RunConfig], options: Options, *, announce: bool = False
) -> list[dict[str, Any]]:
    """Finishes every run of `configs` and returns their result lines, in that order.

    With `announce` the plan and its estimated time are printed before the first run starts.
    """
    loop_name = loops.resolve(options.loop, max((c.devices for c in configs), default=1))
    stop = StopRequest(options.time_limit)
    with contextlib.ExitStack() as stack, stop.catching_signals():
        lock = workdir_lock(options.workdir)
        processes.from_leader(lambda: stack.enter_context(lock))
        datasets = processes.all_succeed(
            lambda: {name: arrays.load(name, options.data_dir) for name in _unique(configs)}
        )
        for config in configs:  # refuse a bad one before the first run
            arrays.prepare(datasets[config.dataset], config)
        ids = [config.run_id(datasets[config.dataset].fingerprint) for config in configs]
        processes.check_same("what they run", ids)
        finished = processes.from_leader(lambda: _finished(options))
        todo = {i: c for i, c in zip(ids, configs, strict=True) if i not in finished}
        if len(todo) < len(set(ids)) and processes.leads():
            print(f"{len(set(ids)) - len(todo)} of {len(set(ids))} runs are finished already.")
        if announce and todo:
            plan = estimate.describe(todo.values(), datasets, finished.values(), loop_name)
            print(plan, flush=True)
        total = sum(estimate.gradients(c, datasets[c.dataset]) for c in todo.values())
        progress = Progress(total, quiet=not processes.leads())
        try:
            for run_id, config in todo.items():
                dataset = datasets[config.dataset]
                finished[run_id] = _run(config, dataset, options, loop_name, progress, stop)
        finally:
            progress.close()
    return [finished[i] for i in ids]


def _run(config: RunConfig, dataset: Dataset, options: Options, loop_name, progress, stop):
    """Trains one run and writes its line, before the next one starts."""
    run_id = config.run_id(dataset.fingerprint)
    prepared = arrays.prepare(dataset, config)
    checkpoints = Checkpoints(options.checkpoints / run_id, options.checkpoint_seconds)
    keep = None
    if options.keep_every is not None:
        keep = weights.Keeper(options.workdir, run_id, options.keep_every, config.epochs)
    summary = train(
        config,
        prepared,
        loop_name=loop_name,
        checkpoints=checkpoints,
        progress=progress,
        stop=stop,
        keep=keep,
    )
    record = {
        "kind": options.kind,
        "run_id": run_id,
        **config.as_json(),
        **summary,
        "labels_changed": round(prepared.labels_changed, 4),
        "dataset_fingerprint": dataset.fingerprint,
        "train_images": len(prepared.train_labels),
        "test_images": len(prepared.test_labels),
        "loop": loop_name,
        "processes": jax.process_count(),
        "command": provenance.command(),
        "versions": provenance.versions(),
        "device": provenance.device(),
    }
    if processes.leads():
        result_lines.append(options.workdir, record)
    progress.say(sentence(record))
    checkpoints.remove()
    return record


def _finished(options: Options) -> dict[str, dict[str, Any]]:
    """The result lines in the workdir by run; nothing else of those runs is kept."""
    records, problems = result_lines.read(options.workdir, options.kind)
    for problem in problems:
        print(f"warning: {problem}", file=sys.stderr)
    # Of a run that several kinds of devices finished, the line of this one's.
    here = jax.default_backend()
    records.sort(key=lambda record: result_lines.platform(record) == here)
    finished = {record["run_id"]: record for record in records}
    _forget_checkpoints(options.checkpoints, finished)
    return finished


def _unique(configs: list[RunConfig]) -> list[str]:
    return list(dict.fromkeys(config.dataset for config in configs))


def _forget_checkpoints(checkpoints: Path, finished: dict[str, Any]) -> None:
    """Removes what a process left that was killed between its last line and its tidying up."""
    for folder in checkpoints.glob("*"):
        if folder.name in finished:
            shutil.rmtree(folder)


def sentence(record: dict[str, Any]) -> str:
    """One run in one line."""
    return (
        f"{name_of(record)}: final {record['test_accuracy_final']:.2f}%, "
        f"best {record['test_accuracy_max']:.2f}%, {record['wall_seconds']:.1f} s"
    )
