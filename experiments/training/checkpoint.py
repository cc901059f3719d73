"""Orbax checkpoints of one run, the last two kept.

Several processes share the folder: each writes what its devices hold, and all of them save, restore
and remove together.
"""

import shutil
import time
import warnings
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from experiments.training import processes
from experiments.training.spec import TrainState

KEPT = 2


class Checkpoints:
    """Saves (state, history) under a folder, by time; restores the newest that is whole."""

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
                state=ocp.args.StandardSave(_storable(state)), history=ocp.args.JsonSave(history)
            )
            manager.save(step, args=args)
            manager.wait_until_finished()
        self._saved_at = time.monotonic()

    def restore(self, like: TrainState) -> tuple[int, TrainState, dict[str, Any]] | None:
        """The newest whole checkpoint, shaped as `like`; a damaged one is named and removed."""
        if not processes.from_leader(self._folder.exists):
            return None
        manager = self._open()
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, _storable(like))
        for step in sorted(manager.all_steps(), reverse=True):
            args = ocp.args.Composite(
                state=ocp.args.StandardRestore(abstract), history=ocp.args.JsonRestore()
            )
            restored, flaw = None, "in another process"
            try:
                restored = manager.restore(step, args=args)
            except Exception as error:  # whatever a damaged file makes Orbax raise
                flaw = type(error).__name__
            if processes.in_all(restored is not None):
                assert restored is not None
                return step, _trainable(restored["state"], like), restored["history"]
            warnings.warn(
                f"the checkpoint {self._folder / str(step)} is damaged ({flaw}); "
                "falling back to the one before it.",
                stacklevel=2,
            )
            manager.delete(step)
        return None

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
                max_to_keep=KEPT, enable_async_checkpointing=False, cleanup_tmp_directories=True
            )
            self._manager = ocp.CheckpointManager(self._folder, options=options)
        return self._manager


def _is_key(leaf) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _storable(state: TrainState):
    """Random keys (of dropout, say) as the integers that they are made of."""
    return jax.tree.map(lambda x: jax.random.key_data(x) if _is_key(x) else x, state)


def _trainable(stored, like: TrainState) -> TrainState:
    return jax.tree.map(
        lambda x, y: jax.random.wrap_key_data(x, impl=jax.random.key_impl(y)) if _is_key(y) else x,
        stored,
        like,
    )
