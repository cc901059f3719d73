"""How many files a new thing touches: each is added here as CONTRIBUTING.md says, and appears."""

import sys

import pytest

from experiments import cli, datasets, models, studies
from experiments.config import paper
from experiments.config.paper import Table
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
from experiments.models.plain import Mlp

MODELS = {"twin": (Mlp, 1)}
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
    for name in ("datasets.stripes", "models.twin", "studies.tiny"):
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


def test_a_network_is_one_file(added, tmp_path, monkeypatch):
    added(models, "twin", MODEL)
    few = [name for name in models.names() if name in ("mlp", "twin")]
    monkeypatch.setattr(models, "names", lambda: few)  # test_models.py counts the large ones
    assert "twin" in ran("models").stdout
    ran("train", "--model", "twin", *SMALL, "--workdir", tmp_path / "w")
    assert "| twin" in reported(tmp_path / "w")


def test_a_study_is_one_file(added, tmp_path):
    """And its runs are not run again."""
    added(studies, "tiny", STUDY)
    words = ["study", "tiny", "--workdir", tmp_path / "w", "--problems", "digits", "--arms", "SAM"]
    ran(*words)
    path = tmp_path / "w" / "tiny_run.jsonl"
    before = path.read_bytes()
    assert len(before.splitlines()) == 2 + 2 * 2  # two radii; SGD, its reference, and SAM
    ran(*words)
    assert path.read_bytes() == before
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
