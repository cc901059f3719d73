"""What a user of the wheel gets: two dependencies, types, and no flax."""

import ast
import inspect
import itertools
import pathlib
import subprocess
import sys
import tomllib

import asam_jax

ROOT = pathlib.Path(__file__).parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]


def tracked():
    """The project's files of text, result lines aside."""
    folders = ("asam_jax", "colab", "docs", "experiments", "tests", ".ci", ".github")
    paths = [*ROOT.glob("*"), *(p for f in folders for p in (ROOT / f).rglob("*"))]
    kinds = {".cff", ".css", ".ipynb", ".md", ".py", ".toml", ".yml"}
    return [p for p in paths if p.is_file() and (p.suffix in kinds or p.parent.name == ".ci")]


def documented_assignments():
    """Names that a module of the package assigns and explains in a string below."""
    for path in (ROOT / "asam_jax").glob("*.py"):
        body = ast.parse(path.read_text()).body
        for node, text in itertools.pairwise(body):
            if isinstance(node, ast.Assign) and isinstance(text, ast.Expr):
                yield from (target.id for target in node.targets if isinstance(target, ast.Name))


def test_the_core_imports_jax_and_optax_alone():
    """Whatever else is loaded was loaded by jax or optax."""
    code = (
        "import sys, jax, optax; before = set(sys.modules); import asam_jax; "
        "print(*{m.split('.')[0] for m in set(sys.modules) - before})"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(out.stdout.split()) == {"asam_jax"}


def test_the_project_depends_on_jax_and_optax_alone():
    assert sorted(d.split(">=")[0] for d in PROJECT["dependencies"]) == ["jax", "optax"]


def test_the_version_stands_in_one_place():
    assert "version" in PROJECT["dynamic"] and "version" not in PROJECT
    assert PYPROJECT["tool"]["hatch"]["version"]["path"] == "asam_jax/__init__.py"
    holders = [p for p in tracked() if f'"{asam_jax.__version__}"' in p.read_text()]
    assert holders == [ROOT / "asam_jax" / "__init__.py"]


def test_the_repositorys_address_stands_in_one_place():
    """But for the notebooks, which tests/test_notebooks.py compares with their sources."""
    name = "/".join(PROJECT["urls"]["Repository"].split("/")[-2:])
    holders = [p for p in tracked() if name in p.read_text() and p.suffix != ".ipynb"]
    assert holders == [ROOT / "pyproject.toml"]
    assert (ROOT / "pyproject.toml").read_text().count(name) == 1


def test_it_is_typed_and_documented():
    assert (ROOT / "asam_jax" / "py.typed").exists()
    explained = set(documented_assignments())
    for name in asam_jax.__all__:
        value = getattr(asam_jax, name)
        if inspect.isfunction(value) or inspect.isclass(value):
            assert ">>>" in (value.__doc__ or ""), name
        else:  # an alias of types, which has no docstring of its own
            assert name in explained, name


def test_imports_go_one_way():
    """Each file imports only files that come before it in this order."""
    order = ["_checks", "_dtypes", "_rules", "_operators", "_masked", "_perturbation"]
    later = sorted(p.stem for p in (ROOT / "asam_jax").glob("_*.py") if p.stem not in order)
    for name in order:
        text = (ROOT / "asam_jax" / f"{name}.py").read_text()
        for other in [*order[order.index(name) + 1 :], *later]:
            assert f"asam_jax.{other} " not in text and f"import {other}\n" not in text
