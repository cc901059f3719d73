"""What a user of the wheel gets: the names, two dependencies, types, and no flax."""

import ast
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
    found = {name for name in vars(asam_jax) if not name.startswith("_")}
    assert found - {"typing", "nnx"} == set(NAMES.split()) - {"typing"}
    for name in TYPES.split():
        assert hasattr(asam_jax.typing, name), name


def test_they_are_typed_and_documented():
    assert (ROOT / "asam_jax" / "py.typed").exists()
    for name, value in vars(asam_jax).items():
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


# A file imports from itself and from lines below it; those of one line do not know each other.
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
    ["__main__"],
    ["cli"],
    ["figures", "studies", "benchmarks"],
    ["reporting"],
    ["training"],
    ["models", "datasets"],
    ["config"],
]


def imported(path, package):
    """The modules and folders of the package that a file imports, at its top or in a function."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        yield from (name.split(".")[1] for name in names if name.startswith(f"{package}."))


@pytest.mark.parametrize(
    ("package", "layers"), [("asam_jax", LIBRARY), ("experiments", EXPERIMENTS)]
)
def test_imports_go_one_way(package, layers):
    level = {name: number for number, line in enumerate(layers) for name in line}
    found = set()
    for path in (ROOT / package).rglob("*.py"):
        own = path.relative_to(ROOT / package).with_suffix("").parts[0]
        found.add(own)
        for other in level.keys() & set(imported(path, package)):
            assert own == other or level[own] < level[other], f"{path} imports {other}"
    assert found - {"__init__"} == level.keys() - {"__init__"}
