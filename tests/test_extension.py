"""How many files a new thing touches: each is added here as CONTRIBUTING.md says, and appears."""

import sys

import pytest

from experiments import cli, datasets, models, studies
from experiments.config import paper
from experiments.config.paper import Table
from experiments.config.run import FIELDS
from experiments.training.variants import VARIANTS, Variant
from tests.cli import lines, ran

SMALL = ["--epochs", "1", "--batch-size", "32", "--subset", "64"]
DATASET = """
import numpy as np
from experiments.datasets.source import Source

def arrays(data_dir):
    rng = np.random.default_rng(0)
    images = rng.integers(256, size=(80, 4, 4, 1), dtype=np.uint8)
    labels = np.arange(80, dtype=np.int32) % 3
    return images, labels, images[:20], labels[:20]

DEFAULTS = dict(model="mlp", epochs=2, label_smoothing=0.0, augment=False, nesterov=False)
SOURCES = {"stripes": Source(3, arrays, {"sam": 0.1, "asam": 0.7}, DEFAULTS)}
"""
MODEL = """
import jax
from flax import nnx

class Linear(nnx.Module):
    def __init__(self, features, classes, **kw):
        self.dense = nnx.Linear(features, classes, **kw)

    def __call__(self, images):
        return self.dense(images.reshape(images.shape[0], -1))

def build(name, *, num_classes, in_features, image_shape, rngs, dtype):
    height, width, channels = image_shape
    return Linear(height * width * channels, num_classes, rngs=rngs, dtype=dtype)

MODELS = {"linear": (build, 1)}
"""
STUDY = """
from experiments.studies.study import Arm, Problem, Study

SHARED = dict(dataset="digits", model="mlp", subset=64, batch_size=32, epochs=1)
STUDIES = {"tiny": Study(
    "tiny", "A tiny study", "Why?",
    (Problem("digits", SHARED, dict(validation=0.5)),),
    (Arm("SGD", dict(method="sgd")), Arm("SAM", dict(method="sam"), dict(rho=(0.1, 0.2)))),
    ("SGD",), seeds=2, tuning_seeds=1,
)}
"""


@pytest.fixture
def added(tmp_path, monkeypatch):
    """Puts one new file into a package, for this test."""

    def add(package, name, text):
        folder = tmp_path / package.__name__.rsplit(".", 1)[-1]
        folder.mkdir()
        (folder / f"{name}.py").write_text(text)
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(folder)])

    yield add
    for name in ("datasets.stripes", "models.linear", "studies.tiny"):
        sys.modules.pop(f"experiments.{name}", None)


def reported(workdir):
    ran("report", "--workdir", workdir)
    return (workdir / "RESULTS.md").read_text()


def test_a_data_set_is_one_file(added, tmp_path):
    added(datasets, "stripes", DATASET)
    ran("train", "--dataset", "stripes", "--batch-size", "32", "--workdir", tmp_path / "w")
    (line,) = lines(tmp_path / "w")
    assert (line["rho"], line["model"], line["epochs"]) == (0.7, "mlp", 2)
    assert "## Runs on stripes" in reported(tmp_path / "w")


def test_a_network_is_one_file(added, tmp_path):
    added(models, "linear", MODEL)
    assert "linear" in ran("models").stdout
    ran("train", "--model", "linear", *SMALL, "--workdir", tmp_path / "w")
    assert "| linear |" in reported(tmp_path / "w")


def test_a_study_is_one_file(added, tmp_path):
    added(studies, "tiny", STUDY)
    ran("study", "tiny", "--workdir", tmp_path / "w")
    assert "## A tiny study: digits" in reported(tmp_path / "w")


def test_a_variant_is_an_entry_of_one_file(tmp_path, monkeypatch):
    monkeypatch.setitem(VARIANTS, "every2", Variant("perturbs at every other step", every=2))
    for name in ("every2", "exact"):
        ran("train", "--model", "mlp", "--variant", name, *SMALL, "--workdir", tmp_path)
    assert "every2" in reported(tmp_path)


def test_a_table_is_an_entry_of_one_file(tmp_path, monkeypatch):
    table = Table("Table 9: small", "digits", ("mlp",), (0.0,), 1)
    monkeypatch.setitem(paper.TABLES, "table9", table)
    command = (table.title, cli._table("table9"))
    monkeypatch.setitem(cli.COMMANDS, "table9", command)  # as the dict is made from TABLES
    ran("table9", *SMALL, "--workdir", tmp_path)
    assert len(lines(tmp_path)) == 3 and "## Table 9: small" in reported(tmp_path)


def test_a_field_of_a_run_is_an_option():
    usage = ran("train", "--help").stdout
    for name in FIELDS:
        assert f"--{name.replace('_', '-')}" in usage
