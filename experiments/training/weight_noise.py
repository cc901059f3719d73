"""Test accuracy of a finished network whose weights carry Gaussian noise."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

LEVELS = (0.2, 0.4, 0.6, 0.8)
# The standard deviation of an entry's noise, in units of the level.
KINDS = {
    "multiplicative": jnp.abs,  # w (1 + level n)
    "additive": lambda w: jnp.sqrt(jnp.mean(w**2)),  # w + level n * root mean square of the leaf
}


def accuracies(loop: Any, state: Any, draws: int) -> dict[str, list[float]]:
    """For each kind of noise the mean accuracy over so many draws, level by level.

    The draws are the same for all networks of one shape.
    """

    def measure(kind: str, level: float) -> float:
        found = [
            loop.evaluate(state._replace(params=noisy(state.params, kind, level, draw)))[1]
            for draw in range(draws)
        ]
        return round(float(np.mean(found)), 4)

    return {kind: [measure(kind, level) for level in LEVELS] for kind in KINDS}


def noisy(params: Any, kind: str, level: float, draw: int) -> Any:
    """The parameters under one draw of noise."""
    noise = optax.tree.random_like(jax.random.key(draw), params)
    return jax.tree.map(lambda w, n: w + level * KINDS[kind](w) * n, params, noise)
