"""Runs a list of runs in a workdir: skips the finished, writes each one's result line."""

import contextlib
import shutil
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import filelock
import jax
from tqdm import tqdm

from experiments.config.errors import ConfigError
from experiments.config.options import Options
from experiments.config.run import FIELDS, Run
from experiments.datasets import arrays
from experiments.datasets.source import Dataset
from experiments.training import loop, processes, provenance, result_lines, weights
from experiments.training.checkpoint import Checkpoints
from experiments.training.resolve import resolve
from experiments.training.stop import StopRequest
from experiments.training.train import train
from experiments.training.variants import gradients_per_step

SECONDS_BETWEEN_LINES = 60.0  # of the progress, where nobody watches


def workdir_lock(workdir: Path) -> filelock.AcquireReturnProxy:
    """Holds `workdir` for this process, to be used in `with`; a second one is refused at once."""
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        return filelock.FileLock(workdir / ".lock", blocking=False).acquire()
    except filelock.Timeout as error:
        raise ConfigError(
            f"workdir {str(workdir)!r} is in use by another process; wait for it, or give another "
            "with --workdir."
        ) from error
    except OSError as error:
        raise ConfigError(
            f"workdir {str(workdir)!r} cannot be written ({error.strerror}); give another with "
            "--workdir."
        ) from error


def run_all(
    runs: Sequence[Run],
    options: Options,
    *,
    kind: str = result_lines.RUN,
    keep_every: int | None = None,
) -> list[dict[str, Any]]:
    """Finishes every run and returns their result lines, in that order.

    Args:
      runs: with or without their defaults filled in.
      options: how to run.
      kind: of the lines, which lie in a file of their own; a figure's or a study's.
      keep_every: epochs between two that leave their weights in the workdir; the last does, too.
    """
    runs = [resolve(run) for run in runs]
    loop_name = loop.resolve(options.loop, max((run.devices for run in runs), default=1))
    stop = StopRequest(options.time_limit)
    with contextlib.ExitStack() as stack, stop.catching_signals():
        processes.from_leader(lambda: bool(stack.enter_context(workdir_lock(options.workdir))))
        names = dict.fromkeys(run.dataset for run in runs)
        datasets = {name: arrays.load(name, options.data_dir) for name in names}
        for run in runs:  # refuse a bad one before the first run
            arrays.sizes(datasets[run.dataset], run)
            loop.make_mesh(run.devices)
        ids = [run.run_id(datasets[run.dataset].fingerprint) for run in runs]
        if any(other != ids for other in processes.exchange(ids)):
            raise ConfigError(
                "the processes differ in what they run: start all of them with the same options, "
                "on the same copy of the data."
            )
        checkpoints = options.workdir / "checkpoints"
        finished = processes.from_leader(lambda: _finished(options.workdir, kind, checkpoints))
        todo = {i: run for i, run in zip(ids, runs, strict=True) if i not in finished}
        if len(todo) < len(set(ids)) and processes.leads():
            print(f"{len(set(ids)) - len(todo)} of {len(set(ids))} runs are finished already.")
        with _progress(todo.values(), datasets) as bar:
            for run_id, run in todo.items():
                bar.set_description(name_of(run.as_json()), refresh=False)
                saved = Checkpoints(checkpoints / run_id, options.checkpoint_seconds)
                prepared = arrays.prepare(datasets[run.dataset], run)
                summary = train(
                    run,
                    prepared,
                    loop_name=loop_name,
                    checkpoints=saved,
                    progress=bar.update,
                    stop=stop,
                    keep=weights.keeper(options.workdir, run_id, keep_every, run.epochs),
                )
                record = {"kind": kind, "run_id": run_id, **run.as_json(), **summary}
                finished[run_id] = record | _origin(prepared, loop_name)
                if processes.leads():
                    result_lines.append(options.workdir, finished[run_id])
                    bar.write(sentence(finished[run_id]))
                saved.remove()
    return [finished[i] for i in ids]


def _progress(runs: Collection[Run], datasets: dict[str, Dataset]) -> tqdm:
    """A bar with rate and time left on a terminal, a line now and then elsewhere.

    It counts gradients, of which SGD's step takes one and SAM's two: one rate holds for all.
    """
    total, between = 0.0, 0.1 if sys.stderr.isatty() else SECONDS_BETWEEN_LINES
    for run in runs:
        steps = arrays.sizes(datasets[run.dataset], run)[0] // run.batch_size * run.epochs
        total += steps * gradients_per_step(run.method, run.variant)
    return tqdm(
        total=total,
        unit="grad",
        disable=not processes.leads() or not runs,
        mininterval=between,
        maxinterval=SECONDS_BETWEEN_LINES,
        delay=between,
        leave=False,
    )


def _origin(prepared: Dataset, loop_name: str) -> dict[str, Any]:
    return {
        "labels_changed": round(prepared.labels_changed, 4),
        "dataset_fingerprint": prepared.fingerprint,
        "train_images": len(prepared.train_labels),
        "test_images": len(prepared.test_labels),
        "loop": loop_name,
        "processes": jax.process_count(),
        **provenance.stamp(),
    }


def _finished(workdir: Path, kind: str, checkpoints: Path) -> dict[str, dict[str, Any]]:
    """The result lines in the workdir by run; nothing else of those runs is kept."""
    records, problems = result_lines.read(workdir, kind)
    for problem in problems:
        print(f"warning: {problem}", file=sys.stderr)
    # Of a run that several kinds of devices finished, the line of this one's.
    here = jax.default_backend()
    records.sort(key=lambda record: result_lines.platform(record) == here)
    finished = {record["run_id"]: record for record in records}
    for folder in checkpoints.glob("*"):
        if folder.name in finished:  # killed between its last line and its tidying up
            shutil.rmtree(folder)
    return finished


def name_of(run: dict[str, Any]) -> str:
    """What a run, as JSON, is called: what tells it from the others of a comparison."""
    words = [run["dataset"], run["model"], run["method"]]
    for name in ("optimizer", "variant", "rho", "parameterization", "label_noise"):
        value = run.get(name, FIELDS[name].default)  # an older line may not have it
        if value not in (FIELDS[name].default, 0.0):
            words.append(f"{name.replace('_', ' ')} {value}")
    return " ".join([*words, f"seed {run['seed']}"])


def sentence(record: dict[str, Any]) -> str:
    """One run in one line."""
    return (
        f"{name_of(record)}: final {record['test_accuracy_final']:.2f}%, "
        f"best {record['test_accuracy_max']:.2f}%, {record['wall_seconds']:.1f} s"
    )
