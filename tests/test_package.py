"""What a user of the wheel gets: the names, two dependencies, types, and no flax."""

import ast
import graphlib
import inspect
import pathlib
import subprocess
import sys
import tomllib

import pytest

import asam_jax

ROOT = pathlib.Path(__file__).parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())

NAMES = """asam sam sharpness_aware alternating friendly_ascent gsam_descent looksam_descent
wsam_descent stable_descent decoupled_wsam momentum_ascent remember value_and_grad perturbation
identity elementwise filterwise masked not_bias all_leaves flax_filter_axes torch_filter_axes
sharpness maximizer average_sharpness radius_profile radius_at RadiusProfile typing"""
TYPES = """Operator LeafPredicate FilterAxes LayerAxes Radius AxisName Descent SharpnessAwareState
AlternatingState DecoupledState RememberState"""


def test_the_public_names():
    assert len(asam_jax.__all__) <= 30
    assert set(asam_jax.__all__) - {"typing", "nnx"} == set(NAMES.split()) - {"typing"}
    for name in TYPES.split():
        assert hasattr(asam_jax.typing, name), name


def test_they_are_typed_and_documented():
    assert (ROOT / "asam_jax" / "py.typed").exists()
    for name in asam_jax.__all__:
        value = getattr(asam_jax, name)
        if inspect.isfunction(value):
            assert ">>>" in (value.__doc__ or ""), name


def loaded_by(statement, before="jax, optax"):
    """The packages that a statement loads beyond those that are loaded before."""
    code = (
        f"import sys, {before}; before = set(sys.modules); {statement}; "
        "print(*{m.split('.')[0] for m in set(sys.modules) - before})"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(out.stdout.split())


def test_it_imports_jax_and_optax_alone():
    """And asam_jax.nnx alone imports flax."""
    assert loaded_by("import asam_jax") - {"jax"} == {"asam_jax"}
    assert "flax" in loaded_by("import asam_jax.nnx")
    dependencies = PYPROJECT["project"]["dependencies"]
    assert sorted(d.split(">=")[0] for d in dependencies) == ["jax", "optax"]


def tracked():
    """The project's files of text, results aside."""
    folders = ("asam_jax", "colab", "docs", "experiments", "tests", ".ci", ".github")
    paths = [*ROOT.glob("*"), *(p for f in folders for p in (ROOT / f).rglob("*"))]
    kinds = {".cff", ".css", ".ipynb", ".md", ".py", ".toml", ".yml"}
    return [p for p in paths if p.is_file() and (p.suffix in kinds or p.parent.name == ".ci")]


def test_version_and_address_stand_in_one_place():
    """But for the notebooks, which are made from sources that read them."""
    project = PYPROJECT["project"]
    assert "version" in project["dynamic"] and "version" not in project
    repository = "/".join(project["urls"]["Repository"].split("/")[-2:])
    for text, place in (
        (f'"{asam_jax.__version__}"', ROOT / "asam_jax" / "__init__.py"),
        (repository, ROOT / "pyproject.toml"),
    ):
        holders = [p for p in tracked() if text in p.read_text() and p.suffix != ".ipynb"]
        assert holders == [place]


# Each line imports from itself and from lines below it. Modules of one line of asam_jax know
# nothing of each other; in experiments a folder may import from itself.
LIBRARY = [
    ["__init__"],
    ["nnx"],
    ["_measures"],
    ["_radius", "_training", "_wrappers"],
    ["_transform", "_momentum", "_descent"],
    ["_perturbation"],
    ["_operators"],
    ["_tree", "_leaf_rules"],
    ["_checks", "_collectives"],
    ["typing"],
]
EXPERIMENTS = [
    ["__main__", "cli"],
    ["figures", "studies", "benchmarks", "reporting"],
    ["training"],
    ["models", "datasets"],
    ["config"],
]


def module_file(name):
    """The file of a module of this project, or None where there is no such module."""
    path = ROOT.joinpath(*name.split("."))
    files = (path.with_suffix(".py"), path / "__init__.py")
    return next((file for file in files if file.exists()), None)


def imports(path, package):
    """The package's modules that a file imports, at its top or within a function."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            whole = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if module_file(name) else str(node.module) for name in whole}
    return {name for name in found if name.split(".")[0] == package and name != package}


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


@pytest.mark.parametrize(
    ("package", "lines", "siblings"),
    [("asam_jax", LIBRARY, False), ("experiments", EXPERIMENTS, True)],
)
def test_imports_go_one_way(package, lines, siblings):
    level = {name: number for number, line in enumerate(lines) for name in line}
    for module, imported in graph(package).items():
        own = module.split(".")[1] if "." in module else lines[0][0]
        for other in imported:
            place = other.split(".")[1]
            below = level[own] < level[place]
            assert below or (siblings and own == place), f"{module} imports {other}"
