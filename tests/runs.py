"""Resolved runs and their loops, for tests."""

import contextlib
from pathlib import Path
from unittest import mock

import jax
import numpy as np

from experiments.config.run import Run
from experiments.datasets import arrays
from experiments.training import step as stepping
from experiments.training.loop import Loop
from experiments.training.resolve import resolve

EVIDENCE = Path(__file__).parents[1] / "experiments" / "evidence"


def made(dataset="digits", method="asam", **values):
    """A run with its defaults filled in."""
    return resolve(Run(dataset=dataset, method=method, **values))


@contextlib.contextmanager
def narrow(network, *widths):
    """A network with other widths, under its own name: no cache may mix them up."""

    def forget():
        stepping._graphdef.cache_clear()
        jax.clear_caches()

    forget()
    with mock.patch.object(network, "widths", widths):
        yield
    forget()


def loop_of(run, name="host"):
    """The loop that trains a run on its prepared data, and that data."""
    dataset = arrays.prepare(arrays.load(run.dataset), run)
    return Loop(run, dataset, name), dataset


def after(loop, epochs=1):
    """The state after so many epochs."""
    state = loop.init()
    for epoch in range(epochs):
        for state, _ in loop.epoch(state, epoch, 0):  # noqa: B007, B020
            pass
    return state


def trained(run, name="host"):
    """The state after all epochs, and what the test set says of it."""
    loop, _ = loop_of(run, name)
    state = after(loop, run.epochs)
    return state, loop.evaluate(state)


def assert_near(found, expected, rtol, atol):
    """Leaf by leaf."""
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)
