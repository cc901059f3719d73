"""Figures 2 and 4: measured right, drawn from lines alone, stopped and gone on with."""

import dataclasses
import json
import math
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import asam_jax
from experiments.datasets import arrays
from experiments.figures import figure2, figure2_measures, figure2_statistics, figure4
from experiments.training import result_lines, runner, weights
from experiments.training import step as stepping
from experiments.training.resolve import resolve
from experiments.training.spec import model_spec
from tests.cli import call
from tests.runs import made

pytestmark = pytest.mark.usefixtures("flax_promotes")


def initial(spec, seed):
    return jax.jit(stepping.init, static_argnums=0)(spec, jnp.uint32(seed))


FIGURE2 = ["figure2", "--model", "mlp", "--epochs", "20", "--subset", "64", "--images", "8"]


@pytest.fixture(scope="module")
def figure2_made(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("figure2")
    done = call(*FIGURE2, "--workdir", workdir)
    assert done.returncode == 0, done.stderr
    return workdir, done.stdout


def test_the_measures_are_the_librarys_sharpness(figure2_made):
    """Which groups of m, which loss, which operator and p: against `asam_jax.sharpness`."""
    config = made(method="sgd", model="mlp")
    dataset = arrays.load("digits")
    spec = model_spec(config, dataset)
    state = initial(spec, 3)
    images, labels = dataset.train_images[:20], dataset.train_labels[:20]
    rhos = (0.01, 0.5)
    found = figure2_measures.sharpnesses(
        spec, state.params, state.rest, images, labels, rhos, m=8, train=False
    )

    def loss(params, batch):
        return stepping.evaluate(spec, params, state.rest, *batch)[0] / 8

    batch = (images[:16], labels[:16])  # the remainder sits out
    for name, (operator, p) in figure2_measures.MEASURES.items():
        for index, rho in enumerate(rhos):
            measure = asam_jax.sharpness(loss, rho=rho, operator=operator, p=p, m=8)
            expected = measure(state.params, batch)
            np.testing.assert_allclose(found[name][index], expected, rtol=1e-3)


def test_training_mode_uses_the_groups_own_statistics():
    config = made(method="sgd", model="cnn")
    dataset = arrays.load("digits")
    spec = model_spec(config, dataset)
    state = initial(spec, 0)
    images, labels = dataset.train_images[:8], dataset.train_labels[:8]
    shifted = jax.tree.map(lambda x: 4 * x + 1 if x.dtype == jnp.float32 else x, state.rest)
    evaluate = jax.jit(stepping.evaluate, static_argnums=0, static_argnames="train")

    def loss(rest, train):
        return float(evaluate(spec, state.params, rest, images, labels, train=train)[0])

    assert loss(state.rest, True) == pytest.approx(loss(shifted, True), rel=1e-6)
    assert loss(state.rest, False) != pytest.approx(loss(shifted, False), rel=1e-3)


def test_figure2_has_a_line_for_each_of_180_networks(figure2_made):
    workdir, printed = figure2_made
    lines = result_lines.read_kind(workdir, figure2.KIND)
    assert len(lines) == 180
    assert len({(line["run"]["weight_decay"], line["epoch"]) for line in lines}) == 180
    for line in lines:
        assert line["gap"] == pytest.approx(line["test_loss"] - line["train_loss"], abs=2e-5)
        for measure in figure2_measures.MEASURES:
            assert len(line[measure]) == len(line["rhos"])
        assert line["command"].startswith("python -m experiments figure2")
        assert line["versions"]["jax"] and line["device"]["platform"] == "cpu"
        assert line["run"]["seed"] == 0
    assert "n = 180 networks" in printed
    assert (workdir / figure2.PICTURE).stat().st_size > 10_000


def test_figure2_goes_on_where_it_was(figure2_made, tmp_path):
    workdir, _ = figure2_made
    copy = tmp_path / "copy"
    shutil.copytree(workdir, copy)
    path = copy / result_lines.name_of(figure2.KIND)
    whole = path.read_text().splitlines()
    path.write_text("\n".join(whole[:-1]) + "\n")
    assert call(*FIGURE2, "--workdir", copy).returncode == 0
    again = [json.loads(line) for line in path.read_text().splitlines()]
    assert again[:-1] == [json.loads(line) for line in whole[:-1]]
    last = json.loads(whole[-1])
    assert {k: v for k, v in again[-1].items() if k != "command"} == {
        k: v for k, v in last.items() if k != "command"
    }
    # With all lines there, nothing is measured: the weights are not needed.
    shutil.rmtree(copy / "weights")
    assert call(*FIGURE2, "--workdir", copy).returncode == 0
    path.write_text("\n".join(whole[:-1]) + "\n")
    done = call(*FIGURE2, "--workdir", copy)
    assert done.returncode == 2 and "are gone" in done.stderr


def test_the_report_draws_from_the_lines(figure2_made, tmp_path):
    workdir, _ = figure2_made
    name = result_lines.name_of(figure2.KIND)
    shutil.copy(workdir / name, tmp_path / name)
    assert call("report", "--workdir", tmp_path).returncode == 0
    assert "Kendall's tau" in (tmp_path / "RESULTS.md").read_text()
    drawn = (tmp_path / figure2.PICTURE).read_bytes()
    assert drawn == (workdir / figure2.PICTURE).read_bytes()


def network(decay, gap_value, rises):
    return {
        "run": {"weight_decay": decay},
        "gap": gap_value,
        "rhos": [0.1, 1.0],
        "adaptive_2": rises,
    }


def test_rho_is_chosen_by_correlation_and_scored_on_the_other_half():
    # At rho 0.1 the measure is the gap itself for the even decays, and falls with it for the odd;
    # at rho 1.0 the other way round.
    lines = []
    for index, decay in enumerate((1e-4, 2e-4, 5e-4, 1e-3)):
        sign = 1.0 if index % 2 == 0 else -1.0
        lines += [network(decay, g, [sign * g, -sign * g]) for g in (1.0, 2.0, 4.0)]
    found = figure2_statistics.score(lines, "adaptive_2", [0.1, 1.0])
    assert found.held_out == pytest.approx(-1.0)
    assert found.r == pytest.approx(0.0, abs=1e-9)
    even = [line for line in lines if line["run"]["weight_decay"] in (1e-4, 5e-4)]
    assert figure2_statistics.best_rho(even, "adaptive_2", [0.1, 1.0]) == 0.1
    assert figure2_statistics.score(even, "adaptive_2", [0.1, 1.0]).tau == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--m", "9"], "m=9 must be at least 1 and at most the 8 images"),
        (["--epochs", "19"], "epochs=19 is too few for 20 checkpoints"),
    ],
)
def test_bad_values_of_figure2(tmp_path, arguments, message):
    done = call(*FIGURE2, *arguments, "--workdir", tmp_path)
    assert done.returncode == 2 and message in done.stderr


def test_weights_come_back_as_they_were(tmp_path):
    config = made(method="sgd", model="cnn")
    spec = model_spec(config, arrays.load("digits"))
    state = initial(spec, 1)
    path = tmp_path / "w" / "0001.npz"
    weights.save(path, state.params, state.rest)
    params, rest = weights.load(path, spec)
    for a, b in zip(
        jax.tree.leaves((params, rest)), jax.tree.leaves((state.params, state.rest)), strict=True
    ):
        np.testing.assert_array_equal(a, b)


def test_figure4_has_every_radius_in_each_region():
    shared = dataclasses.replace(figure4.RUN, dataset="cifar10")
    configs = [resolve(run) for run in figure4.plan(shared, (), seeds=1)]
    assert len(configs) == 1 + 3 * 15 and {c.cutout for c in configs} == {16}
    radii = sorted({c.rho for c in configs if c.method == "asam"})
    assert radii[:3] == [0.00005, 0.0001, 0.0002] and radii[-3:] == [0.5, 1.0, 2.0]
    shared = dataclasses.replace(figure2.RUN, dataset="cifar10", label_noise=0.2)
    (first, *_) = figure2.plan(shared)
    assert (first.model, first.epochs, first.label_noise) == ("wrn16_8", 200, 0.2)
    assert {(c.normalization, c.p) for c in configs if c.method == "asam"} == {
        ("elementwise", 2.0),
        ("elementwise", math.inf),
        ("filterwise", 2.0),
    }
    assert {c.model for c in configs} == {"wrn16_8"}


def test_figure4_draws_its_own_runs_alone(tmp_path):
    arguments = ["--model", "mlp", "--epochs", "1", "--subset", "128", "--rhos", "0.1", "--seeds"]
    done = call("figure4", *arguments, "2", "--workdir", tmp_path)
    assert done.returncode == 0, done.stderr
    runs, problems = result_lines.read(tmp_path, figure4.KIND)
    assert len(runs) == 2 * (1 + 3) and not problems
    assert result_lines.read(tmp_path)[0] == []  # no runs of the tables
    assert (tmp_path / figure4.PICTURE).stat().st_size > 10_000
    assert call("report", "--workdir", tmp_path).returncode == 0
    assert "n = 8 runs" in (tmp_path / "RESULTS.md").read_text()


def test_the_last_weights_of_a_run_are_kept(tmp_path):
    config = made(method="sgd", model="mlp", epochs=3, subset=128)
    (record,) = runner.run_all([config], runner.Options(tmp_path), kind="kept", keep_every=2)
    folder = tmp_path / "weights" / record["run_id"]
    assert sorted(path.name for path in folder.iterdir()) == ["0002.npz", "0003.npz"]
