"""What a user of the wheel gets: two dependencies, types, and no flax."""

import ast
import graphlib
import inspect
import itertools
import pathlib
import subprocess
import sys
import tomllib

import pytest

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
    assert set(out.stdout.split()) - {"jax"} == {"asam_jax"}


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


# Each file of the library that names what a later one builds on, in order; the others come after.
FIRST = ["_checks", "_dtypes", "_names", "_rules", "_layouts", "_filters"]
FIRST += ["_operators", "_masked", "_reductions", "_orders", "_perturbation"]
# A room imports from itself and from rooms below it: each line stands on those under it, and the
# rooms of one line know nothing of each other.
ROOMS = [
    ["__main__"],
    ["commands"],
    ["figures", "benchmarks"],
    ["reporting"],
    ["training"],
    ["models", "datasets"],
    ["config"],
]


def imports(path, package):
    """The package's modules that a file imports, at its top or within a function."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: imports are absolute here"
            whole = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if module_file(name) else node.module for name in whole}
    return {name for name in found if name.split(".")[0] == package}


def module_file(name):
    """The file of a module of this project, or None where there is no such module."""
    path = ROOT.joinpath(*name.split("."))
    files = (path.with_suffix(".py"), path / "__init__.py")
    return next((file for file in files if file.exists()), None)


def graph(package):
    """Each module of a package -> those of the package that it imports."""
    files = [p for p in (ROOT / package).rglob("*.py") if "evidence" not in p.parts]
    names = {p: ".".join(p.relative_to(ROOT).with_suffix("").parts) for p in files}
    return {name.removesuffix(".__init__"): imports(p, package) for p, name in names.items()}


@pytest.mark.parametrize("package", ["asam_jax", "experiments"])
def test_no_module_imports_itself_by_way_of_others(package):
    try:
        graphlib.TopologicalSorter(graph(package)).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_the_librarys_imports_go_one_way():
    """Each file imports only files that come before it in this order."""
    places = {f"asam_jax.{name}": number for number, name in enumerate(FIRST)}
    for name, imported in graph("asam_jax").items():
        place = places.get(name, len(FIRST))
        for other in imported:
            assert name not in places or places.get(other, len(FIRST)) < place, (name, other)


def test_a_room_imports_from_rooms_below_it():
    level = {room: number for number, line in enumerate(ROOMS) for room in line}
    for name, imported in graph("experiments").items():
        room = name.split(".")[1] if "." in name else "__main__"
        for other in imported - {"experiments"}:
            below = other.split(".")[1]
            assert room == below or level[room] < level[below], f"{name} imports {other}"
    folders = {p.parent.name for p in (ROOT / "experiments").glob("*/__init__.py")}
    assert folders == level.keys() - {"__main__"}


def test_the_files_of_experiments_lie_in_rooms():
    assert {p.name for p in (ROOT / "experiments").glob("*.py")} == {"__init__.py", "__main__.py"}
