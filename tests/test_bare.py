"""Where only what trains is installed: `python -m experiments` trains and names the rest."""

import subprocess
import sys

import pytest

from experiments.datasets import cifar
from tests.test_cifar import hand_in

# Of the extra `experiments`, what docs/accelerators.md does not install.
BARE = """
import importlib.abc, sys

class Bare(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("matplotlib", "pandas", "sklearn"):
            raise ModuleNotFoundError("No module named " + repr(name), name=name)

sys.meta_path.insert(0, Bare())
from experiments.cli import main
main()
"""


def bare(*words):
    command = [sys.executable, "-c", BARE, *map(str, words)]
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
