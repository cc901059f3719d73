"""The host's loop and the scan run the same step: the same runs either way, stopped or not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.config.errors import ConfigError
from experiments.training import loop as loops
from experiments.training.step import epoch_order
from experiments.training.train import sha256
from tests.cli import call, lines
from tests.runs import loop_of, made, trained

pytestmark = pytest.mark.usefixtures("flax_promotes")
SMALL = dict(model="mlp", epochs=2, subset=300, batch_size=64, label_noise=0.4)


@pytest.mark.parametrize("method", ["sgd", "asam"])
def test_the_same_seed_gives_the_same_run_either_way(method):
    run = made(method=method, seed=5, **SMALL)
    (scanned, found), (hosted, expected) = trained(run, "scan"), trained(run)
    for a, b in zip(jax.tree.leaves(hosted), jax.tree.leaves(scanned), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-5)
    np.testing.assert_allclose(found, expected, rtol=5e-3)


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


def test_a_seed_alone_decides_a_run():
    digests = [sha256(trained(made(seed=seed, **SMALL))[0].params) for seed in (1, 1, 2)]
    assert digests[0] == digests[1] != digests[2]


def test_an_epoch_visits_every_image_once():
    spec = loop_of(made(**SMALL))[0].spec
    order = epoch_order(spec, jnp.uint32(3), jnp.int32(1), 300)
    assert order.shape == (256,) and len(set(order.tolist())) == 256
    assert order.tolist() != epoch_order(spec, jnp.uint32(3), jnp.int32(2), 300).tolist()


def test_evaluation_counts_the_padded_images_not():
    """500 test images in one batch, or 1,300 in two that do not fill up."""
    loop, dataset = loop_of(made(**SMALL))
    state = loop.init()
    loss, accuracy = loop.evaluate(state)
    images = np.concatenate([dataset.test_images] * 3)[:1301]
    labels = np.concatenate([dataset.test_labels] * 3)[:1301]
    part = loops.EvaluationSet(images[:301], labels[:301])
    whole = loops.EvaluationSet(images, labels)
    weights = loop.spec.model, state.params, state.rest
    rest_loss, rest_accuracy = part.mean(*weights)
    expected = (
        (1000 * loss + 301 * rest_loss) / 1301,
        (1000 * accuracy + 301 * rest_accuracy) / 1301,
    )
    np.testing.assert_allclose(whole.mean(*weights), expected, rtol=1e-5)


def test_names_of_loops():
    assert loops.resolve("auto") == "host"  # the tests run on the CPU
    with pytest.raises(ConfigError, match="unknown loop 'fast'"):
        loops.resolve("fast")
