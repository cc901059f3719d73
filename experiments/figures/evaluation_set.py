"""Mean loss and accuracy of a network over all images of a set, in evaluation mode."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.datasets import arrays
from experiments.training import step as stepping
from experiments.training.spec import ModelSpec

_BATCH = 1000


class EvaluationSet:
    """The images and labels on the device, in batches of one size; padding has the label -1."""

    def __init__(self, images: np.ndarray, labels: np.ndarray):
        self.count = len(labels)
        batches = -(-self.count // _BATCH)
        size = -(-self.count // batches)
        images, labels = arrays.filled_up(images, labels, batches * size)
        self._batches = [
            (jnp.asarray(images[start : start + size]), jnp.asarray(labels[start : start + size]))
            for start in range(0, len(labels), size)
        ]

    def mean(self, spec: ModelSpec, params: Any, rest: Any) -> tuple[float, float]:
        """Mean cross-entropy in nats and accuracy in percent."""
        parts = [stepping.jitted_evaluate(spec, params, rest, *batch) for batch in self._batches]
        loss, correct = np.sum(jax.device_get(parts), axis=0)
        return float(loss) / self.count, 100 * float(correct) / self.count
