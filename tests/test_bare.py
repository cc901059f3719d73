"""Where only what trains is installed: `python -m experiments` trains and names the rest."""

import contextlib
import importlib.metadata
import re
import subprocess
import sys

import pytest

from experiments.datasets import cifar
from tests.test_cifar import hand_in

# What docs/accelerators.md says to install, and with it all that these require.
TRAINS = ["jax", "flax", "optax", "orbax-checkpoint", "numpy", "tyro", "filelock", "tqdm"]
READS = ["tensorflow-datasets", "array-record", "importlib-resources", "pillow"]
BARE = """
import importlib.abc, sys

class Bare(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {absent}:
            raise ModuleNotFoundError("No module named " + repr(name), name=name)

sys.meta_path.insert(0, Bare())
from experiments.cli import main
sys.argv = ["experiments", *{words}]
main()
"""


def normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def closure(names):
    """The distributions of these names and all that they require."""
    found, todo = set(), {normal(name) for name in names}
    while todo - found:
        found |= todo
        needs = []
        for name in todo:
            with contextlib.suppress(importlib.metadata.PackageNotFoundError):  # another system's
                needs += importlib.metadata.requires(name) or []
        words = [need for need in needs if "extra ==" not in need]
        todo = {normal(re.split(r"[^\w.-]", word, maxsplit=1)[0]) for word in words}
    return found


@pytest.fixture(scope="module")
def absent():
    """Modules of all distributions that are installed here beyond those."""
    kept = closure([*TRAINS, *READS])
    owners = importlib.metadata.packages_distributions()
    found = {m for m, of in owners.items() if not kept & {normal(name) for name in of}}
    assert {"pandas", "matplotlib", "sklearn"} <= found
    return sorted(found - {"asam_jax", "experiments", "tests"})


def bare(absent, *words):
    code = BARE.format(absent=set(absent), words=[str(word) for word in words])
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


@pytest.mark.filterwarnings("ignore")  # of tfds and what it loads
def test_it_trains_where_only_what_trains_is_installed(absent, tmp_path, monkeypatch):
    """From a prepared copy of 20 images, with nothing in the cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    hand_in(tmp_path / "tfds", "cifar10", monkeypatch)
    cifar.prepare("cifar10", tmp_path / "tfds")
    words = ["--dataset", "cifar10", "--data-dir", tmp_path / "tfds", "--model", "mlp"]
    words += ["--batch-size", 10, "--epochs", 1, "--workdir", tmp_path / "runs"]
    done = bare(absent, "train", *words)
    assert done.returncode == 0, done.stderr
    assert "cifar10 mlp asam rho 0.5 seed 0" in done.stdout
    assert len((tmp_path / "runs" / "results.jsonl").read_text().splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "package"), [((), "matplotlib"), (("train", "--model", "mlp"), "scikit-learn")]
)
def test_a_command_that_needs_more_says_what(absent, tmp_path, words, package):
    done = bare(absent, *words, "--workdir", tmp_path)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert f"error: this command needs {package}, which is not installed" in done.stderr
    assert f"pip install {package}, or" in done.stderr
