"""What a user of the wheel gets: the names, two dependencies, types, and no flax."""

import ast
import inspect
import pathlib
import subprocess
import sys
import tomllib

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


def test_the_version_stands_in_one_place():
    project = PYPROJECT["project"]
    assert "version" in project["dynamic"] and "version" not in project
    folders = ("asam_jax", "colab", "docs", "experiments", "tests", ".github")
    paths = [*ROOT.glob("*"), *(p for f in folders for p in (ROOT / f).rglob("*"))]
    kinds = {".cff", ".md", ".py", ".toml", ".yml"}
    holders = [
        p for p in paths if p.suffix in kinds and f'"{asam_jax.__version__}"' in p.read_text()
    ]
    assert holders == [ROOT / "asam_jax" / "__init__.py"]


# Each line imports from lines below it; modules of one line know nothing of each other.
LAYERS = [
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


def imported_by(path):
    """The modules of the package that a file imports, at its top or within a function."""
    modules = {module for layer in LAYERS for module in layer}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] == "asam_jax":
            names = {alias.name for alias in node.names} & modules
            yield from names if node.module == "asam_jax" else {str(node.module).split(".")[1]}


def test_imports_go_one_way():
    level = {module: number for number, layer in enumerate(LAYERS) for module in layer}
    for path in (ROOT / "asam_jax").glob("*.py"):
        for other in imported_by(path):
            assert level[path.stem] < level[other], f"{path.stem} imports {other}"
