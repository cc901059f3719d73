"""The host loop and the scan run the same step: the same runs either way, stopped or not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.config import run_config
from experiments.config.errors import ConfigError
from experiments.datasets import arrays
from experiments.training import estimate, loops
from experiments.training.spec import hyper_of, spec_of
from experiments.training.train import sha256
from tests.cli import call, lines

pytestmark = pytest.mark.usefixtures("flax_promotes")


def setting(method, **values):
    made = run_config.make(
        "digits",
        method,
        model="mlp",
        epochs=2,
        subset=300,
        batch_size=64,
        label_noise=0.4,
        **values,
    )
    dataset = arrays.prepare(arrays.load("digits"), made)
    return made, dataset


def run(name, made, dataset, seed):
    steps = len(dataset.train_labels) // made.batch_size
    hyper = hyper_of(made, made.epochs * steps)
    loop = loops.make_loop(name, spec_of(made, dataset), dataset, hyper, seed)
    state = loop.init()
    for epoch in range(made.epochs):
        for state, _ in loop.epoch(state, epoch, 0):  # noqa: B007, B020
            pass
    return state, loop.evaluate(state)


@pytest.mark.parametrize("method", ["sgd", "sam", "asam"])
def test_the_same_seed_gives_the_same_run_either_way(method):
    made, dataset = setting(method)
    scanned, (losses, correct) = run("scan", made, dataset, 5)
    hosted, (loss, right) = run("host", made, dataset, 5)
    for a, b in zip(jax.tree.leaves(hosted), jax.tree.leaves(scanned), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-5)
    np.testing.assert_allclose(loss, losses, rtol=1e-3)
    assert abs(int(right) - int(correct)) <= 2


SCAN = ["train", "--model", "mlp", "--subset", 256, "--epochs", 2, "--seeds", 2, "--loop", "scan"]


def test_a_scan_that_is_stopped_leaves_whole_lines_and_ends_with_the_same_bits(tmp_path):
    """The limit ends each call after an epoch, so that it takes several to finish two seeds."""
    assert call(*SCAN, "--workdir", tmp_path / "whole").returncode == 0
    expected = lines(tmp_path / "whole")
    assert [record["seed"] for record in expected] == [0, 1]
    stopped, finished = tmp_path / "stopped", [0]
    while finished[-1] < 2 and len(finished) < 9:
        done = call(*SCAN, "--workdir", stopped, "--time-limit", "0.01")
        assert done.returncode == 0, done.stderr
        path = stopped / "results.jsonl"
        finished.append(len(lines(stopped)) if path.exists() else 0)
    assert finished[1] == 0 and 1 in finished and finished[-1] == 2
    names = ("run_id", "params_sha256", "metrics", "loop")
    for record, whole in zip(lines(stopped), expected, strict=True):
        assert [record[name] for name in names] == [whole[name] for name in names]


def test_the_estimate_runs_no_program_that_the_run_does_not(monkeypatch):
    """Of the loop that will run, and of whole epochs where that one scans them."""
    made, _ = setting("sgd")
    used = []
    real = loops.make_loop

    def make_loop(name, *arguments):
        loop = real(name, *arguments)
        epoch = loop.epoch

        def counted(state, number, start):
            for state, taken in epoch(state, number, start):  # noqa: B020
                used.append((name, start, taken))
                yield state, taken

        loop.epoch = counted
        return loop

    monkeypatch.setattr(loops, "make_loop", make_loop)
    for name in ("host", "scan"):
        text = estimate.describe([made], {"digits": arrays.load("digits")}, [], name)
        assert "from a few steps" in text
    assert used == [("host", 0, 1)] * 3 + [("scan", 0, 4)] * 2


def test_a_seed_alone_decides_a_run():
    made, dataset = setting("asam")
    first, second, other = (run("host", made, dataset, seed)[0] for seed in (1, 1, 2))
    assert sha256(first.params) == sha256(second.params) != sha256(other.params)


def test_an_epoch_visits_every_image_once():
    from experiments.training.step import epoch_order

    spec = spec_of(*setting("sgd"))

    order = epoch_order(spec, jnp.uint32(3), jnp.int32(1), 300)
    assert order.shape == (256,) and len(set(order.tolist())) == 256
    again = epoch_order(spec, jnp.uint32(3), jnp.int32(2), 300)
    assert order.tolist() != again.tolist()


def test_evaluation_counts_the_padded_images_not():
    """500 test images in one chunk of 500, or 1,000-image chunks that do not fill up."""
    made, dataset = setting("sgd")
    state, (loss, right) = run("host", made, dataset, 0)
    images = np.concatenate([dataset.test_images] * 3)[:1300]
    labels = np.concatenate([dataset.test_labels] * 3)[:1300]
    import dataclasses

    tiled = dataclasses.replace(dataset, test_images=images, test_labels=labels)
    hyper = hyper_of(made, 8)
    loop = loops.make_loop("host", spec_of(made, dataset), tiled, hyper, 0)
    tiled_loss, tiled_right = loop.evaluate(state)
    part = dataclasses.replace(
        dataset, test_images=dataset.test_images[:300], test_labels=dataset.test_labels[:300]
    )
    rest = loops.make_loop("host", spec_of(made, dataset), part, hyper, 0).evaluate(state)
    np.testing.assert_allclose(tiled_loss, 2 * loss + rest[0], rtol=1e-5)
    assert tiled_right == 2 * right + rest[1]


def test_names_of_loops():
    assert loops.resolve("auto") == "host"  # the tests run on the CPU
    with pytest.raises(ConfigError, match="unknown loop 'fast'"):
        loops.resolve("fast")
