"""Trained weights as .npz files, for the figures that look at a network after its training.

A file holds the parameters and what else evaluation needs (BatchNorm's running statistics), each
array under its path; random keys, which evaluation does not use, are left out.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.config.errors import ConfigError
from experiments.training import step as stepping
from experiments.training.spec import ModelSpec, TrainState


def keeper(workdir: Path, run_id: str, every: int, last: int) -> Callable[[int, TrainState], None]:
    """What writes the weights of every so many epochs, and of the last."""

    def keep(epochs: int, state: TrainState) -> None:
        if epochs % every == 0 or epochs == last:
            save(path_of(workdir, run_id, epochs), state.params, state.rest)

    return keep


def path_of(workdir: Path, run_id: str, epochs: int) -> Path:
    """Where a run's weights after so many epochs lie."""
    return workdir / "weights" / run_id / f"{epochs:04d}.npz"


def save(path: Path, params: Any, rest: Any) -> None:
    """Writes all arrays, or, when stopped midway, no file at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.new")
    with new.open("wb") as file:
        np.savez(file, allow_pickle=False, **dict(_arrays((params, rest))))
    new.replace(path)


def load(path: Path, spec: ModelSpec) -> tuple[Any, Any]:
    """The stored (params, rest) of a network; random keys are a fresh network's.

    Raises:
      ConfigError: there is no such file, or it is of another network.
    """
    fresh = stepping.jitted_init(spec, jnp.uint32(0))
    like = (fresh.params, fresh.rest)
    try:
        with np.load(path) as stored:
            arrays = {name: stored[name] for name in stored.files}
    except FileNotFoundError as error:
        raise ConfigError(
            f"the weights {str(path)!r} are gone, and the figure's lines do not cover them yet; "
            "take another --workdir, where the networks are trained anew."
        ) from error
    shapes = {name: leaf.shape for name, leaf in _arrays(like)}
    if {name: array.shape for name, array in arrays.items()} != shapes:
        raise ConfigError(f"the weights {str(path)!r} are of another network; delete the file.")
    return jax.tree_util.tree_map_with_path(
        lambda keys, leaf: jnp.asarray(arrays.get(jax.tree_util.keystr(keys), leaf)), like
    )


def _arrays(tree: Any) -> Iterator[tuple[str, np.ndarray]]:
    for keys, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            yield jax.tree_util.keystr(keys), np.asarray(leaf)
