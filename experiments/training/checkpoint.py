"""Orbax checkpoints of one run, the newest kept.

Several processes share the folder: each writes what its devices hold, and all of them save, restore
and remove together.
"""

import shutil
import time
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from experiments.training import processes
from experiments.training.spec import TrainState


class Checkpoints:
    """Saves (state, history) under a folder, by time, and restores the newest."""

    def __init__(self, folder: Path, every_seconds: float):
        self._folder = folder.absolute()
        self._every = every_seconds
        self._saved_at = time.monotonic()
        self._manager: ocp.CheckpointManager | None = None

    def due(self) -> bool:
        return time.monotonic() - self._saved_at >= self._every

    def save(self, step: int, state: TrainState, history: dict[str, Any]) -> None:
        """Writes a checkpoint and returns when it is whole; one of the same step stays."""
        manager = self._open()
        if step not in manager.all_steps():
            args = ocp.args.Composite(
                state=ocp.args.StandardSave(state), history=ocp.args.JsonSave(history)
            )
            manager.save(step, args=args)
            manager.wait_until_finished()
        self._saved_at = time.monotonic()

    def restore(self, like: TrainState) -> tuple[int, TrainState, dict[str, Any]] | None:
        """The newest checkpoint, shaped and laid out as `like`; None where there is none.

        One that was being written when its process was killed does not count: Orbax gives it its
        name when it is whole.
        """
        if not processes.from_leader(self._folder.exists):
            return None
        manager = self._open()
        step = manager.latest_step()
        if step is None:
            return None
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        args = ocp.args.Composite(
            state=ocp.args.StandardRestore(abstract), history=ocp.args.JsonRestore()
        )
        restored = manager.restore(step, args=args)
        return step, restored["state"], restored["history"]

    def remove(self) -> None:
        """Deletes all of them: their run is finished."""
        self.close()
        if processes.leads():
            shutil.rmtree(self._folder, ignore_errors=True)

    def close(self) -> None:
        if self._manager is not None:
            self._manager.close()
            self._manager = None

    def _open(self) -> ocp.CheckpointManager:
        if self._manager is None:
            # Synchronous: the next step is given the state's buffers to overwrite.
            options = ocp.CheckpointManagerOptions(
                max_to_keep=1, enable_async_checkpointing=False, cleanup_tmp_directories=True
            )
            self._manager = ocp.CheckpointManager(self._folder, options=options)
        return self._manager
