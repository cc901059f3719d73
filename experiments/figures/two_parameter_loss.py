"""The two-parameter loss of section 6.1, L(w) = |w1 ReLU(w2) - 0.04|: Figures 1 and 3."""

import jax
import jax.numpy as jnp
import numpy as np

TARGET = 0.04


def loss(w: jax.Array, batch: object = ()) -> jax.Array:
    """L at w = (w1, w2); depends on the product w1 ReLU(w2) alone, and on no data."""
    del batch
    return jnp.abs(w[0] * jax.nn.relu(w[1]) - TARGET)


def surface(w1: np.ndarray, w2: np.ndarray) -> np.ndarray:
    """L on the grid of these coordinates, (len(w2), len(w1)), for contours."""
    return np.abs(w1[None, :] * np.maximum(w2, 0)[:, None] - TARGET)
