"""Trains the runs of one program from their last checkpoint to their end, epoch by epoch."""

import hashlib
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from experiments.config.run_config import RunConfig
from experiments.config.step_forms import gradients_per_step
from experiments.datasets.arrays import Dataset
from experiments.training import loops, processes, reused_direction
from experiments.training.checkpoint import Checkpoints
from experiments.training.progress import Progress
from experiments.training.spec import TrainState, hyper_of, spec_of
from experiments.training.stop import StopRequest


def train(
    configs: list[RunConfig],
    dataset: Dataset,
    *,
    loop_name: str,
    checkpoints: Checkpoints,
    progress: Progress,
    stop: StopRequest,
    keep: Callable[[int, TrainState], None] | None = None,
) -> list[dict[str, Any]]:
    """Runs `configs`, which differ in their seeds alone, and returns what each came to.

    `dataset` is the prepared one: with label noise, cut to its subset. `keep` is called after each
    epoch with the number of finished epochs and the state; after a resumption perhaps again.

    Raises:
      Stopped: `stop` asked for it; a checkpoint is written first.
    """
    config = configs[0]
    seeds = [one.seed for one in configs]
    spec, images = spec_of(config, dataset), len(dataset.train_labels)
    per_epoch = spec.steps(images)
    seen = images if spec.keeps_partial else per_epoch * config.batch_size
    hyper = hyper_of(config, config.epochs * per_epoch)
    loop = loops.make_loop(loop_name, spec, dataset, hyper, seeds)
    state: TrainState = loop.init()
    step, history, seconds_before = 0, [], 0.0
    found = checkpoints.restore(state)
    if found is not None:
        step, state, stored = found
        history, seconds_before = stored["epochs"], stored["seconds"]
    cost = gradients_per_step(config.method, config.variant) * len(seeds)
    progress.start(_label(configs), step * cost)
    started = time.monotonic()

    def stored_history():
        return {"epochs": history, "seconds": seconds_before + time.monotonic() - started}

    for epoch in range(len(history), config.epochs):
        for state, taken in loop.epoch(state, epoch, step - epoch * per_epoch):  # noqa: B020
            step += taken
            progress.update(taken * cost)
            pending, due = processes.agree(step, stop.pending, checkpoints.due())
            if pending or due:
                checkpoints.save(step, state, stored_history())
            if pending:
                raise pending
        tested = (epoch + 1) % config.test_every == 0 or epoch + 1 == config.epochs
        history.append(_epoch_record(loop, state, dataset, seen, tested))
        if keep is not None:
            keep(epoch + 1, state)
    seconds = stored_history()["seconds"]
    return [_summary(state, history, index, seconds, len(seeds)) for index in range(len(seeds))]


def _label(configs: list[RunConfig]) -> str:
    first = configs[0]
    seeds = ",".join(str(config.seed) for config in configs)
    return f"{first.dataset} {first.model} {first.method} seed {seeds}"


def _epoch_record(
    loop, state: TrainState, dataset: Dataset, seen: int, tested: bool
) -> dict[str, list[float | None]]:
    """The epoch's metrics, a list with one entry for each seed; None for a test that was not."""
    loss_sum, correct = jax.device_get((state.loss_sum, state.correct_sum))
    columns = {
        "train_loss": np.atleast_1d(loss_sum) / loop.steps_per_epoch,
        "train_accuracy": 100 * np.atleast_1d(correct) / seen,
    }
    record: dict[str, list[float | None]] = {}
    if tested:
        test_loss, test_correct = loop.evaluate(state)
        count = len(dataset.test_labels)
        columns |= {"test_loss": test_loss / count, "test_accuracy": 100 * test_correct / count}
    else:
        untested = [None] * np.size(loss_sum)
        record = {"test_loss": untested, "test_accuracy": untested}
    return {n: [round(float(v), 4) for v in values] for n, values in columns.items()} | record


def _summary(state, history, index: int, seconds: float, seeds: int) -> dict[str, Any]:
    epochs = {name: [row[name][index] for row in history] for name in history[0]}
    params = jax.tree.map(lambda x: np.asarray(x), state.params)
    if np.ndim(state.step) > 0:
        params = jax.tree.map(lambda x: x[index], params)
    cost = reused_direction.gradients_per_step(state.memory, state.step)
    measured = {} if cost is None else {"gradients_per_step": float(np.atleast_1d(cost)[index])}
    return {
        "test_accuracy_final": epochs["test_accuracy"][-1],
        "test_accuracy_max": max(a for a in epochs["test_accuracy"] if a is not None),
        "params_sha256": sha256(params),
        "wall_seconds": round(seconds, 2),
        "seeds_in_program": seeds,
        "metrics": epochs,
        **measured,
    }


def sha256(params) -> str:
    """The digest of all parameters' bytes, leaf by leaf in tree order."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(params):
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()
