"""The notebooks in colab are those that their sources make; one runs here, all once a week."""

import importlib.util
import os
import pathlib
import re
import subprocess
import tomllib

import nbformat
import pytest

COLAB = pathlib.Path(__file__).parent.parent / "colab"
spec = importlib.util.spec_from_file_location("colab_build", COLAB / "build.py")
assert spec is not None and spec.loader is not None
build = importlib.util.module_from_spec(spec)
spec.loader.exec_module(build)

each = pytest.mark.parametrize("name", build.NAMES)
RUN = build.NAMES if os.environ.get("ASAM_JAX_EVERY_NOTEBOOK") else ("toy_trajectories",)
PROJECT = tomllib.loads((COLAB.parent / "pyproject.toml").read_text())["project"]
ADDRESS = PROJECT["urls"]["Repository"]


def cells(notebook):
    return [(cell.cell_type, cell.source) for cell in notebook.cells]


def outputs(notebook):
    return [o for cell in notebook.cells if cell.cell_type == "code" for o in cell.outputs]


def pictures(notebook):
    return [o for o in outputs(notebook) if "image/png" in o.get("data", {})]


def committed(name):
    return nbformat.read(COLAB / f"{name}.ipynb", as_version=4)


def test_every_notebook_has_a_source():
    assert {p.stem for p in COLAB.glob("*.ipynb")} == set(build.NAMES)
    assert {p.stem for p in COLAB.glob("*.py")} == {*build.NAMES, "build"}


@each
def test_a_notebook_has_the_cells_of_its_source_and_their_outputs(name):
    notebook, path = committed(name), COLAB / f"{name}.ipynb"
    assert cells(notebook) == cells(build.read(name)), f"run: python colab/build.py {name}"
    nbformat.validate(notebook)
    assert path.stat().st_size < 300_000
    assert pictures(notebook)
    assert {o.output_type for o in outputs(notebook)} <= {"stream", "display_data"}
    text = "".join(o.text for o in outputs(notebook) if o.output_type == "stream")
    assert text and not re.search(r"/\w+/|Warning|Traceback", text)


@each
def test_a_notebook_opens_in_colab(name):
    first = build.read(name).cells[0]
    there = ADDRESS.replace("github.com", "colab.research.google.com/github")
    assert first.cell_type == "markdown"
    assert f"]({there}/blob/main/colab/{name}.ipynb)" in first.source


@each
@pytest.mark.parametrize("folder", ["colab", "elsewhere"])
def test_a_notebook_installs_the_checkout_that_it_lies_in_or_the_repository(
    name, folder, tmp_path, monkeypatch
):
    commands = []
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(subprocess, "run", lambda command, check: commands.append(command))
    monkeypatch.chdir(COLAB if folder == "colab" else tmp_path)
    installs, end, _ = build.read(name).cells[1].source.partition("check=True)")
    exec(installs + end)
    assert (".." if folder == "colab" else f"git+{ADDRESS}") in commands[0]


# jupyter_core warns of a change of its folders.
@pytest.mark.filterwarnings("ignore:Jupyter is migrating:DeprecationWarning")
@pytest.mark.parametrize("name", RUN)
def test_a_notebook_runs_from_top_to_bottom(name, tmp_path):
    notebook = build.execute(build.read(name), tmp_path)
    assert len(pictures(notebook)) == len(pictures(committed(name)))
    assert not [o for o in outputs(notebook) if o.output_type == "error"]
    assert not [o for o in outputs(notebook) if o.get("name") == "stderr"]
