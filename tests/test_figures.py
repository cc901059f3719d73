"""Figures 2 and 4: measured right, drawn from lines alone, gone on with."""

import dataclasses
import math
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import asam_jax
from experiments.datasets import arrays
from experiments.figures import figure2, figure2_report, figure4
from experiments.models.plain import Cnn
from experiments.training import result_lines, runner
from experiments.training import step as stepping
from experiments.training.resolve import resolve
from experiments.training.spec import model_spec
from tests.cli import ran, refused
from tests.runs import made, narrow

pytestmark = pytest.mark.usefixtures("flax_promotes")
FIGURE2 = ["figure2", "--model", "mlp", "--epochs", "20", "--subset", "64", "--images", "8"]
RNG = np.random.default_rng(0)


def problem(model, count):
    """A network, its initial state, and the first images."""
    dataset = arrays.load("digits")
    spec = model_spec(made(method="sgd", model=model), dataset)
    state = jax.jit(stepping.init, static_argnums=0)(spec, jnp.uint32(3))
    return spec, state, dataset.train_images[:count], dataset.train_labels[:count]


def few_networks(patch):
    """Of two weight decays, each at three moments."""
    patch.setattr(figure2, "WEIGHT_DECAYS", figure2.WEIGHT_DECAYS[-2:])
    patch.setattr(figure2, "CHECKPOINTS", 3)


@pytest.fixture(scope="module")
def figure2_made(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("figure2")
    with pytest.MonkeyPatch.context() as patch:
        few_networks(patch)
        return workdir, ran(*FIGURE2, "--workdir", workdir).stdout


@pytest.fixture(scope="module")
def small_cnn():
    with narrow(Cnn, 4):
        yield


@pytest.mark.parametrize("name", ["sharpness_2", "adaptive_inf"])
def test_the_measures_are_the_librarys_sharpness_and_leave_statistics_alone(name, small_cnn):
    spec, state, images, labels = problem("cnn", 16)
    rhos = (0.01, 0.5)
    measure = figure2._sharpness(spec, name, 8)
    found = measure((state.params, state.rest), (images, labels), rhos).rise

    def loss(params, batch):
        return stepping.evaluate(spec, params, state.rest, *batch)[0] / 8

    operator, p = figure2.MEASURES[name]
    for rho, rise in zip(rhos, found, strict=True):
        expected = asam_jax.sharpness(loss, rho=rho, operator=operator, p=p, m=8)
        np.testing.assert_allclose(rise, expected(state.params, (images, labels)), rtol=1e-3)


def test_figure2_has_a_line_for_each_network_that_is_drawn(figure2_made, tmp_path):
    workdir, printed = figure2_made
    lines = result_lines.read_kind(workdir, "figure2")
    assert len(lines) == 6 and "n = 6 networks" in printed
    assert len({(line["run"]["weight_decay"], line["epoch"]) for line in lines}) == 6
    for line in lines:
        assert line["gap"] == pytest.approx(line["test_loss"] - line["train_loss"], abs=2e-5)
        assert {len(line[measure]) for measure in figure2.MEASURES} == {len(line["rhos"])}
        assert line["command"].startswith("python -m experiments figure2")
    drawn = (workdir / "figure2.png").read_bytes()
    shutil.copy(workdir / "figure2.jsonl", tmp_path)
    ran("report", "--workdir", tmp_path)
    assert "Kendall's tau" in (tmp_path / "RESULTS.md").read_text()
    assert len(drawn) > 10_000 and (tmp_path / "figure2.png").read_bytes() == drawn


def test_figure2_goes_on_where_it_was(figure2_made, monkeypatch, tmp_path):
    few_networks(monkeypatch)
    copy = tmp_path / "copy"
    shutil.copytree(figure2_made[0], copy)
    before = result_lines.read_kind(copy, "figure2")
    result_lines.replace(copy, before[:-1], "figure2.jsonl")
    ran(*FIGURE2, "--workdir", copy)
    again = result_lines.read_kind(copy, "figure2")
    assert again[:-1] == before[:-1]
    assert again[-1] | {"command": ""} == before[-1] | {"command": ""}
    # With all lines there, nothing is measured: the weights are not needed.
    shutil.rmtree(copy / "weights")
    ran(*FIGURE2, "--workdir", copy)
    result_lines.replace(copy, before[:-1], "figure2.jsonl")
    refused("are gone", *FIGURE2, "--workdir", copy)


def test_rho_is_chosen_by_correlation_and_scored_on_the_other_half():
    # At rho 0.1 the measure is the gap itself for the even decays, and falls with it for the odd;
    # at rho 1.0 the other way round.
    lines = [
        dict(run={"weight_decay": decay}, gap=g, rhos=[0.1, 1.0], adaptive_2=[sign * g, -sign * g])
        for decay, sign in ((1e-4, 1), (2e-4, -1), (5e-4, 1), (1e-3, -1))
        for g in (1.0, 2.0, 4.0)
    ]
    found = figure2_report.score(lines, "adaptive_2", [0.1, 1.0])
    assert found.held_out == pytest.approx(-1.0)
    assert found.r == pytest.approx(0.0, abs=1e-9)
    even = lines[:3] + lines[6:9]
    chosen = figure2_report.score(even, "adaptive_2", [0.1, 1.0])
    assert chosen.rho == 0.1 and chosen.tau == pytest.approx(1.0)


def test_bad_values_of_figure2(tmp_path):
    words = [*FIGURE2, "--workdir", tmp_path]
    refused("m=9 must be at least 1 and at most the 8 images", *words, "--m", "9")
    refused("epochs=19 is too few for 20 checkpoints", *words, "--epochs", "19")


def test_the_plans_are_the_papers():
    shared = dataclasses.replace(figure4.RUN, dataset="cifar10")
    configs = [resolve(run) for run in figure4.plan(shared, (), seeds=1)]
    assert len(configs) == 1 + 3 * 15
    assert {(c.cutout, c.model) for c in configs} == {(16, "wrn16_8")}
    asam = [c for c in configs if c.method == "asam"]
    radii = sorted({c.rho for c in asam})
    assert radii[:3] == [0.00005, 0.0001, 0.0002] and radii[-3:] == [0.5, 1.0, 2.0]
    regions = {("elementwise", 2.0), ("elementwise", math.inf), ("filterwise", 2.0)}
    assert {(c.normalization, c.p) for c in asam} == regions
    shared = dataclasses.replace(figure2.RUN, dataset="cifar10", label_noise=0.2)
    (first, *others) = figure2.plan(shared)
    assert (1 + len(others)) * figure2.CHECKPOINTS == 180
    assert (first.model, first.epochs, first.label_noise) == ("wrn16_8", 200, 0.2)


def test_figure4_draws_its_own_runs_alone(tmp_path):
    arguments = ["--model", "mlp", "--epochs", "1", "--subset", "128", "--rhos", "0.1", "--seeds"]
    ran("figure4", *arguments, "2", "--workdir", tmp_path)
    runs, problems = result_lines.read(tmp_path, "figure4")
    assert len(runs) == 2 * (1 + 3) and not problems
    assert result_lines.read(tmp_path)[0] == []  # no runs of the tables
    assert (tmp_path / "figure4.png").stat().st_size > 10_000
    ran("report", "--workdir", tmp_path)
    assert "n = 8 runs" in (tmp_path / "RESULTS.md").read_text()


def test_the_last_weights_of_a_run_are_kept(tmp_path):
    config = made(method="sgd", model="mlp", epochs=3, subset=128)
    (record,) = runner.run_all([config], runner.Options(tmp_path), kind="kept", keep_every=2)
    folder = tmp_path / "weights" / record["run_id"]
    assert sorted(path.name for path in folder.iterdir()) == ["0002.npz", "0003.npz"]
