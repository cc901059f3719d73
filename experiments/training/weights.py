"""Trained weights as .npz files, for the figures that look at a network after its training.

A file holds the leaves of the parameters and of what else evaluation needs (BatchNorm's running
statistics), in tree order.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.config.errors import ConfigError
from experiments.training import step as stepping
from experiments.training.spec import ModelSpec, TrainState


def path_of(workdir: Path, run_id: str, epochs: int) -> Path:
    """Where a run's weights after so many epochs lie."""
    return workdir / "weights" / run_id / f"{epochs:04d}.npz"


def keeper(
    workdir: Path, run_id: str, every: int | None, last: int
) -> Callable[[int, TrainState], None]:
    """What writes the weights of every so many epochs, and of the last; with None, of none."""

    def keep(epochs: int, state: TrainState) -> None:
        if every and (epochs % every == 0 or epochs == last):
            path = path_of(workdir, run_id, epochs)
            path.parent.mkdir(parents=True, exist_ok=True)
            new = path.with_name(f".{path.name}.new")  # or, when stopped midway, no file at all
            with new.open("wb") as file:
                np.savez(file, *jax.tree.leaves((state.params, state.rest)))
            new.replace(path)

    return keep


def load(path: Path, spec: ModelSpec) -> tuple[Any, Any]:
    """The stored (params, rest) of a network; ConfigError where there is no such file."""
    fresh = stepping.jitted_init(spec, jnp.uint32(0))
    try:
        with np.load(path) as stored:
            leaves = [jnp.asarray(stored[name]) for name in stored.files]
    except FileNotFoundError as error:
        raise ConfigError(
            f"the weights {str(path)!r} are gone, and the figure's lines do not cover them yet; "
            "take another --workdir, where the networks are trained anew."
        ) from error
    return jax.tree.unflatten(jax.tree.structure((fresh.params, fresh.rest)), leaves)
