"""Trains one run from its last checkpoint to its end, epoch by epoch."""

import hashlib
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from experiments.config.run_config import RunConfig
from experiments.config.step_forms import gradients_per_step
from experiments.datasets.arrays import Dataset
from experiments.training import loops, processes, radius_rule, reused_direction
from experiments.training.checkpoint import Checkpoints
from experiments.training.progress import Progress, name_of
from experiments.training.spec import TrainState
from experiments.training.stop import StopRequest


def train(
    config: RunConfig,
    dataset: Dataset,
    *,
    loop_name: str,
    checkpoints: Checkpoints,
    progress: Progress,
    stop: StopRequest,
    keep: Callable[[int, TrainState], None] | None = None,
) -> dict[str, Any]:
    """Runs `config` and returns what it came to.

    `dataset` is the prepared one: with label noise, cut to its subset. `keep` is called after each
    epoch with the number of finished epochs and the state; after a resumption perhaps again.

    Raises:
      Stopped: `stop` asked for it; a checkpoint is written first.
    """
    loop = loops.of_run(loop_name, config, dataset)
    per_epoch = loop.steps_per_epoch
    seen = min(per_epoch * config.batch_size, len(dataset.train_labels))
    state: TrainState = loop.init()
    step, history, seconds_before, rho = 0, [], 0.0, config.rho
    found = checkpoints.restore(state)
    if found is not None:
        step, state, stored = found
        history, seconds_before = stored["epochs"], stored["seconds"]
        rho = stored.get("rho", rho)
    cost = gradients_per_step(config.method, config.variant)
    progress.start(name_of(config.as_json()), step * cost)
    started = time.monotonic()

    def stored_history():
        kept = {} if config.radius_rule == "fixed" else {"rho": rho}
        seconds = seconds_before + time.monotonic() - started
        return {"epochs": history, "seconds": seconds, **kept}

    for epoch in range(len(history), config.epochs):
        if radius_rule.due(config, epoch) and step == epoch * per_epoch:
            rho = radius_rule.chosen(config, loop, state, epoch, rho)
        loops.set_radius(loop, rho)
        for state, taken in loop.epoch(state, epoch, step - epoch * per_epoch):  # noqa: B020
            step += taken
            progress.update(taken * cost)
            pending, due = processes.agree(step, stop.pending, checkpoints.due())
            if pending or due:
                checkpoints.save(step, state, stored_history())
            if pending:
                raise pending
        tested = (epoch + 1) % config.test_every == 0 or epoch + 1 == config.epochs
        record = _epoch_record(loop, state, dataset, seen, tested)
        history.append(record if config.radius_rule == "fixed" else record | {"rho": round(rho, 5)})
        if keep is not None:
            keep(epoch + 1, state)
    summary = _summary(state, history, stored_history()["seconds"])
    if config.radius_rule != "fixed":
        cost += radius_rule.cost(config) / step
        summary["gradients_per_step"] = round(summary.get("gradients_per_step", cost), 4)
    return summary


def _epoch_record(
    loop, state: TrainState, dataset: Dataset, seen: int, tested: bool
) -> dict[str, float | None]:
    """The epoch's metrics; None for a test that was not."""
    loss_sum, correct = jax.device_get((state.loss_sum, state.correct_sum))
    record: dict[str, Any] = {
        "train_loss": loss_sum / loop.steps_per_epoch,
        "train_accuracy": 100 * correct / seen,
    }
    if tested:
        test_loss, test_correct = loop.evaluate(state)
        count = len(dataset.test_labels)
        record |= {"test_loss": test_loss / count, "test_accuracy": 100 * test_correct / count}
    record = {name: round(float(value), 4) for name, value in record.items()}
    return record if tested else record | {"test_loss": None, "test_accuracy": None}


def _summary(state: TrainState, history: list[dict], seconds: float) -> dict[str, Any]:
    epochs = {name: [row[name] for row in history] for name in history[0]}
    cost = reused_direction.gradients_per_step(state.memory, state.step)
    measured = {} if cost is None else {"gradients_per_step": float(cost)}
    return {
        "test_accuracy_final": epochs["test_accuracy"][-1],
        "test_accuracy_max": max(a for a in epochs["test_accuracy"] if a is not None),
        "params_sha256": sha256(state.params),
        "wall_seconds": round(seconds, 2),
        "metrics": epochs,
        **measured,
    }


def sha256(params) -> str:
    """The digest of all parameters' bytes, leaf by leaf in tree order."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(params):
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()
