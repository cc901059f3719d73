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
from experiments.config.options import Processes
from experiments.training.stop import Stopped

STEPS_BETWEEN_TALKS = 10


def join(how: Processes, devices: int | None) -> int | None:
    """Connects this process with the others, if any, and returns how many devices share a batch.

    Must run before JAX is used. Several processes train on all the devices that they have; on TPU,
    SLURM and other clusters JAX finds them by itself.
    """
    given = (how.coordinator, how.num_processes, how.process_id)
    if not how.distributed:
        if given != (None, None, None):
            raise ConfigError(
                "coordinator, num_processes and process_id mean nothing to a process that is "
                "alone; give --distributed, too, or leave them out."
            )
        return devices
    try:
        jax.distributed.initialize(*given)
    except (RuntimeError, ValueError) as error:
        raise ConfigError(
            f"the processes could not be connected ({error}); where no cluster is detected give "
            "--coordinator HOST:PORT, --num-processes N and --process-id I."
        ) from error
    if devices not in (None, jax.device_count()):
        raise ConfigError(
            f"devices={devices}, but the processes have {jax.device_count()} together and train "
            "on all; leave --devices out."
        )
    return jax.device_count()


def leads() -> bool:
    """Whether this process is the one that writes results and speaks."""
    return jax.process_index() == 0


def exchange(value: Any) -> list[Any]:
    """The JSON values of all processes, in their order."""
    if jax.process_count() == 1:
        return [value]
    data = np.frombuffer(json.dumps(value).encode(), np.uint8)
    sizes = np.ravel(multihost_utils.process_allgather(np.int32(len(data))))
    padded = np.pad(data, (0, sizes.max() - len(data)))
    rows = np.asarray(multihost_utils.process_allgather(padded))
    return [json.loads(row[:size].tobytes()) for row, size in zip(rows, sizes, strict=True)]


def from_leader(function: Callable[[], Any]) -> Any:
    """What `function` gives the leading process, as JSON values, in every process.

    A ConfigError there is raised in all.
    """
    value, failure = None, None
    if leads():
        try:
            value = function()
        except ConfigError as error:
            failure = str(error)
    value, failure = exchange([value, failure])[0]
    if failure is not None:
        raise ConfigError(failure)
    return value


def agree(step: int, pending: Stopped | None, due: bool) -> tuple[Stopped | None, bool]:
    """Whether to stop (where any process was asked to) and to save (by the leader's clock).

    Talking makes every process wait for the slowest, so it happens every few steps.
    """
    if jax.process_count() == 1:
        return pending, due
    if step % STEPS_BETWEEN_TALKS:
        return None, False
    wishes = exchange([pending and pending.exit_code, due])
    for number, (code, _) in enumerate(wishes):
        if pending is None and code is not None:
            pending = Stopped(f"process {number}", code)
    return pending, wishes[0][1]
