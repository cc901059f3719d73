"""Trains one run from its last checkpoint to its end, epoch by epoch."""

import hashlib
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from experiments.config.run import Run
from experiments.datasets.source import Dataset
from experiments.training import processes, weight_noise
from experiments.training.checkpoint import Checkpoints
from experiments.training.loop import Loop
from experiments.training.spec import TrainState
from experiments.training.stop import StopRequest
from experiments.training.variants import gradients_per_step


def train(
    run: Run,
    dataset: Dataset,
    *,
    loop_name: str,
    checkpoints: Checkpoints,
    progress: Callable[[float], Any],
    stop: StopRequest,
    keep: Callable[[int, TrainState], None],
) -> dict[str, Any]:
    """Trains a resolved run and returns what it came to.

    `dataset` is the prepared one: with label noise, cut to its subset. `progress` is told the
    gradients of each step, and of all steps before a checkpoint that was found. `keep` is called
    after each epoch with the number of finished epochs and the state; after a resumption perhaps
    again.

    Raises:
      Stopped: `stop` asked for it; a checkpoint is written first.
    """
    loop = Loop(run, dataset, loop_name)
    per_epoch = loop.steps_per_epoch
    state: TrainState = loop.init()
    step, history, seconds_before = 0, [], 0.0
    found = checkpoints.restore(state)
    if found is not None:
        step, state, stored = found
        history, seconds_before = stored["epochs"], stored["seconds"]
    cost = gradients_per_step(run.method, run.variant)
    progress(step * cost)
    started = time.monotonic()

    def stored_history():
        seconds = round(seconds_before + time.monotonic() - started, 2)
        return {"epochs": history, "seconds": seconds}

    for epoch in range(len(history), run.epochs):
        for state, taken in loop.epoch(state, epoch, step - epoch * per_epoch):  # noqa: B020
            step += taken
            progress(taken * cost)
            pending, due = processes.agree(step, stop.pending, checkpoints.due())
            if pending or due:
                checkpoints.save(step, state, stored_history())
            if pending:
                raise pending
        tested = (epoch + 1) % run.test_every == 0 or epoch + 1 == run.epochs
        history.append(_epoch_record(loop, state, per_epoch * run.batch_size, tested))
        keep(epoch + 1, state)
    return _summary(run, loop, state, history) | {"wall_seconds": stored_history()["seconds"]}


def _epoch_record(loop: Loop, state: TrainState, seen: int, tested: bool) -> dict[str, Any]:
    """The epoch's metrics; None for a test that was not."""
    loss_sum, correct = jax.device_get((state.loss_sum, state.correct_sum))
    test_loss, test_accuracy = loop.evaluate(state) if tested else (None, None)
    found = {
        "train_loss": loss_sum / loop.steps_per_epoch,
        "train_accuracy": 100 * correct / seen,
        "test_loss": test_loss,
        "test_accuracy": test_accuracy,
    }
    return {name: None if x is None else round(float(x), 4) for name, x in found.items()}


def _summary(run: Run, loop: Loop, state: TrainState, history: list[dict]) -> dict[str, Any]:
    epochs = {name: [row[name] for row in history] for name in history[0]}
    digest = hashlib.sha256()  # of all parameters' bytes, leaf by leaf in tree order
    for leaf in jax.tree.leaves(state.params):
        digest.update(np.ascontiguousarray(leaf).tobytes())
    summary: dict[str, Any] = {
        "test_accuracy_final": epochs["test_accuracy"][-1],
        "test_accuracy_max": max(a for a in epochs["test_accuracy"] if a is not None),
        "params_sha256": digest.hexdigest(),
        "metrics": epochs,
    }
    if run.weight_noise:
        summary["weight_noise_accuracy"] = weight_noise.accuracies(loop, state, run.weight_noise)
    return summary
