"""Where only what trains is installed: `python -m experiments` trains and names the rest."""

import pathlib
import re
import subprocess
import sys
import tomllib

import pytest

from experiments.datasets import cifar
from tests.test_cifar import hand_in

ROOT = pathlib.Path(__file__).parent.parent
BARE = """
import importlib.abc, sys

class Bare(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {absent}:
            raise ModuleNotFoundError("No module named " + repr(name), name=name)

sys.meta_path.insert(0, Bare())
from experiments.cli import main
main()
"""


def absent():
    """Modules of the extra `experiments` that docs/accelerators.md does not install."""
    page = (ROOT / "docs" / "accelerators.md").read_text()
    lines = re.findall(r'^(?:packages|reader)="(.*?)"', page, flags=re.MULTILINE)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needs = project["optional-dependencies"]["experiments"]
    extra = {re.split(r"[^\w-]", need)[0] for need in needs}
    missing = extra - {word for line in lines for word in line.split()} - {"scipy"}  # of JAX
    assert {"matplotlib", "scikit-learn"} == missing
    return {"sklearn" if name == "scikit-learn" else name for name in missing}


def bare(*words):
    command = [sys.executable, "-c", BARE.format(absent=absent()), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.filterwarnings("ignore")  # of tfds and what it loads
def test_it_trains_where_only_what_trains_is_installed(tmp_path, monkeypatch):
    """From a prepared copy of 20 images, with nothing in the cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    hand_in(tmp_path / "tfds", "cifar10", monkeypatch)
    cifar.prepare("cifar10", tmp_path / "tfds")
    words = ["--dataset", "cifar10", "--data-dir", tmp_path / "tfds", "--model", "mlp"]
    words += ["--batch-size", 10, "--epochs", 1, "--workdir", tmp_path / "runs"]
    done = bare("train", *words)
    assert done.returncode == 0, done.stderr
    assert len((tmp_path / "runs" / "results.jsonl").read_text().splitlines()) == 1
