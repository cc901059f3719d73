"""The loss surfaces: directions as long as the network's filters, losses where they should be."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.figures import landscape
from experiments.training import result_lines
from tests.cli import call

ARGUMENTS = ["--model", "mlp", "--epochs", "1", "--subset", "128", "--images", "50"]


pytestmark = pytest.mark.usefixtures("flax_promotes")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("landscape")
    done = call("landscape", *ARGUMENTS, "--workdir", workdir)
    assert done.returncode == 0, done.stderr
    return workdir, done.stdout


def test_each_filter_of_a_direction_is_as_long_as_the_networks():
    rng = np.random.default_rng(0)
    params = {
        "conv": {
            "kernel": jnp.asarray(rng.normal(size=(3, 3, 4, 5)), jnp.float32),
            "bias": jnp.ones(5),
        },
        "dense": {"kernel": jnp.asarray(rng.normal(size=(6, 7)), jnp.float32)},
        "norm": {"scale": jnp.ones(5)},
    }
    found = jax.tree.map(np.asarray, landscape.direction(params, jax.random.key(1)))
    for name in ("conv", "dense"):
        ours, wanted = (np.array(tree[name]["kernel"]) for tree in (found, params))
        for output in range(wanted.shape[-1]):
            np.testing.assert_allclose(
                np.linalg.norm(ours[..., output]), np.linalg.norm(wanted[..., output]), rtol=1e-5
            )
    assert not found["conv"]["bias"].any() and not found["norm"]["scale"].any()
    other = landscape.direction(params, jax.random.key(2))
    assert np.abs(found["dense"]["kernel"] - np.asarray(other["dense"]["kernel"])).max() > 0.1


def test_all_surfaces_of_a_network_meet_at_its_weights(made):
    lines = result_lines.read_kind(made[0], landscape.KIND)
    assert [line["method"] for line in lines] == ["sgd", "sam", "asam"]
    for line in lines:
        middle = line["alphas"].index(0.0)
        at_weights = {cut[middle] for cut in line["train_loss"]}
        at_weights.add(line["plane"][line["grid"].index(0.0)][line["grid"].index(0.0)])
        assert max(at_weights) - min(at_weights) < 1e-4
        # The plane's axes are the first two cuts.
        column = line["plane"][line["grid"].index(0.0)]
        shared = [line["train_loss"][0][line["alphas"].index(a)] for a in line["grid"]]
        np.testing.assert_allclose(column, shared, atol=1e-4)
        row = [values[line["grid"].index(0.0)] for values in line["plane"]]
        shared = [line["train_loss"][1][line["alphas"].index(a)] for a in line["grid"]]
        np.testing.assert_allclose(row, shared, atol=1e-4)
        assert line["images"] == 50 and len(line["params_sha256"]) == 64


def test_a_measured_network_is_not_measured_again(made):
    workdir, printed = made
    assert "Measuring the surface around ASAM" in printed
    path = workdir / result_lines.name_of(landscape.KIND)
    before = path.read_text()
    picture = (workdir / landscape.PICTURE).read_bytes()
    again = call("landscape", *ARGUMENTS, "--workdir", workdir)
    assert again.returncode == 0 and "Measuring" not in again.stdout
    assert path.read_text() == before
    assert (workdir / landscape.PICTURE).read_bytes() == picture


def test_the_rise_is_the_mean_of_both_sides():
    line = {"alphas": [-0.5, 0.0, 0.5], "train_loss": [[3.0, 1.0, 2.0], [1.0, 1.0, 1.5]]}
    assert landscape.rises(json.loads(json.dumps(line)), 0.5) == [1.5, 0.25]
