"""The loop that `train` uses, on random images of CIFAR's shape."""

import jax
import numpy as np

from experiments.config.run_config import RunConfig
from experiments.datasets import arrays
from experiments.training import loops

IMAGE_SHAPE = (32, 32, 3)
TEST_IMAGES = 10_000  # CIFAR's; fewer where there are fewer to train on


class RandomLoop:
    """The loop of that name and configuration, on so many images drawn anew."""

    def __init__(self, config: RunConfig, images: int, name: str):
        rng = np.random.default_rng(0)

        def drawn(count: int):
            pictures = rng.integers(256, size=(count, *IMAGE_SHAPE), dtype=np.uint8)
            return pictures, rng.integers(10, size=count, dtype=np.int32)

        self.test_images = min(images, TEST_IMAGES)
        whole = arrays.from_arrays("cifar10", 10, *drawn(images), *drawn(self.test_images))
        self._loop = loops.of_run(name, config, arrays.prepare(whole, config))
        self.restart()
        self.steps = self._loop.steps_per_epoch

    def run(self, steps: int | None = None) -> int:
        """Runs an epoch, or so many steps and perhaps some more; how many it took.

        After a part of an epoch `restart` comes before the next one.
        """
        taken = 0
        while taken < (1 if steps is None else steps):
            for state, count in self._loop.epoch(self._state, self._epoch, 0):
                self._state = state
                taken += count
                if steps is not None and taken >= steps:
                    break
            self._epoch += 1
        jax.block_until_ready(self._state)
        return taken

    def restart(self) -> None:
        """Begins anew, with fresh parameters."""
        self._state, self._epoch = jax.block_until_ready(self._loop.init()), 0

    def evaluate(self) -> None:
        """The whole test set, as after each epoch."""
        self._loop.evaluate(self._state)
