"""Several processes, one run: how they find each other, and how they decide things together.

Each process holds its own devices. What one process alone can know (the clock, a signal, what lies
in the workdir) is told to all before anyone acts on it, so that all of them do the same.
"""

import json
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from experiments.config.errors import ConfigError
from experiments.training.stop import Stopped

STEPS_BETWEEN_TALKS = 10


def join(
    distributed: bool,
    devices: int | None,
    coordinator: str | None,
    num_processes: int | None,
    process_id: int | None,
) -> int:
    """Connects this process with the others, if any, and returns how many devices share a batch.

    Must run before JAX is used. Several processes train on all the devices that they have; on TPU,
    SLURM and other clusters JAX finds them by itself.
    """
    given = (coordinator, num_processes, process_id)
    named = "coordinator, num_processes and process_id"
    if not distributed:
        if given != (None, None, None):
            raise ConfigError(
                f"{named} mean nothing to a process that is alone; give --distributed, too, or "
                "leave them out."
            )
        return 1 if devices is None else devices
    if None in given and given != (None, None, None):
        raise ConfigError(f"{named} belong together; give all three or none.")
    if num_processes is not None and process_id is not None and process_id >= num_processes:
        raise ConfigError(
            f"process_id={process_id} is not below num_processes={num_processes}; it counts from 0."
        )
    try:
        jax.distributed.initialize(coordinator, num_processes, process_id)
    except (RuntimeError, ValueError) as error:
        raise ConfigError(
            f"the processes could not be connected ({error}); where no cluster is detected give "
            "--coordinator HOST:PORT, --num-processes N and --process-id I."
        ) from error
    if devices is not None and jax.process_count() > 1 and devices != jax.device_count():
        raise ConfigError(
            f"devices={devices}, but the {jax.process_count()} processes have "
            f"{jax.device_count()} together and train on all; leave --devices out."
        )
    return jax.device_count() if devices is None else devices


def leads() -> bool:
    """Whether this process is the one that writes results and speaks."""
    return jax.process_index() == 0


def from_leader(function: Callable[[], Any]) -> Any:
    """What `function` gives the leading process, as JSON values, in every process.

    A ConfigError there is raised in all.
    """
    if jax.process_count() == 1:
        return function()
    message: dict[str, Any] = {}
    if leads():
        try:
            message = {"value": function()}
        except ConfigError as error:
            message = {"error": str(error)}
    message = _broadcast(message)
    if "error" in message:
        raise ConfigError(message["error"])
    return message["value"]


def all_succeed(function: Callable[[], Any]) -> Any:
    """Each process's own value of `function`; a ConfigError in one is raised in all."""
    if jax.process_count() == 1:
        return function()
    value, failure = None, None
    try:
        value = function()
    except ConfigError as error:
        failure = error
    failed = np.flatnonzero(_gather(failure is not None))
    if failure is not None:
        raise failure
    if failed.size:
        raise ConfigError(f"process {failed[0]} could not go on; see what it printed.")
    return value


def in_all(flag: bool) -> bool:
    """Whether `flag` is true in every process."""
    return bool(np.all(_gather(flag))) if jax.process_count() > 1 else flag


def check_same(name: str, value: Any) -> None:
    """Raises in every process where one's value is not the leader's."""
    expected = from_leader(lambda: value)
    if not in_all(expected == value):
        raise ConfigError(
            f"the processes differ in {name}: start all of them with the same options, on the "
            "same copy of the data."
        )


def agree(step: int, pending: Stopped | None, due: bool) -> tuple[Stopped | None, bool]:
    """Whether to stop (where any process was asked to) and to save (by the leader's clock).

    Talking makes every process wait for the slowest, so it happens every few steps.
    """
    if jax.process_count() == 1:
        return pending, due
    if step % STEPS_BETWEEN_TALKS:
        return None, False
    code = -1 if pending is None else pending.exit_code
    wishes = _gather([code, due])
    codes = wishes[:, 0]
    if pending is None and codes.max() >= 0:
        pending = Stopped(f"process {codes.argmax()}", int(codes.max()))
    return pending, bool(wishes[0, 1])


def _gather(values) -> np.ndarray:
    """Small integers of all processes, a row each."""
    return np.asarray(multihost_utils.process_allgather(np.asarray(values, np.int32)))


def _broadcast(message: dict[str, Any]) -> dict[str, Any]:
    data = np.frombuffer(json.dumps(message).encode(), np.uint8)
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(data))))
    padded = np.zeros(size, np.uint8)
    if leads():
        padded[:] = data
    return json.loads(np.asarray(multihost_utils.broadcast_one_to_all(padded)).tobytes())
