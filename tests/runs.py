"""Resolved runs and their loops, for tests."""

from experiments.config.run import Run
from experiments.datasets import arrays
from experiments.training.loop import Loop
from experiments.training.resolve import resolve


def made(dataset="digits", method="asam", **values):
    """A run with its defaults filled in."""
    return resolve(Run(dataset=dataset, method=method, **values))


def loop_of(run, name="host"):
    """The loop that trains a run on its prepared data, and that data."""
    dataset = arrays.prepare(arrays.load(run.dataset), run)
    return Loop(run, dataset, name), dataset


def trained(run, name="host"):
    """The state after all epochs, and what the test set says of it."""
    loop, _ = loop_of(run, name)
    state = loop.init()
    for epoch in range(run.epochs):
        for state, _ in loop.epoch(state, epoch, 0):  # noqa: B007, B020
            pass
    return state, loop.evaluate(state)
