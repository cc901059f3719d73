"""What a user of the wheel gets: two dependencies, types, and no flax."""

import pathlib
import subprocess
import sys
import tomllib

import asam_jax

ROOT = pathlib.Path(__file__).parent.parent


def test_the_core_imports_jax_and_optax_alone():
    """Whatever else is loaded was loaded by jax or optax."""
    code = (
        "import sys, jax, optax; before = set(sys.modules); import asam_jax; "
        "print(*{m.split('.')[0] for m in set(sys.modules) - before})"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(out.stdout.split()) == {"asam_jax"}


def test_the_project_depends_on_jax_and_optax_alone():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert sorted(d.split(">=")[0] for d in project["dependencies"]) == ["jax", "optax"]
    assert asam_jax.__version__ == project["version"]


def test_it_is_typed_and_documented():
    assert (ROOT / "asam_jax" / "py.typed").exists()
    for name in asam_jax.__all__:
        assert ">>>" in (getattr(asam_jax, name).__doc__ or ""), name


def test_imports_go_one_way():
    """Each file imports only files that come before it in this order."""
    order = ["_checks", "_dtypes", "_rules", "_operators", "_masked", "_perturbation"]
    later = sorted(p.stem for p in (ROOT / "asam_jax").glob("_*.py") if p.stem not in order)
    for name in order:
        text = (ROOT / "asam_jax" / f"{name}.py").read_text()
        for other in [*order[order.index(name) + 1 :], *later]:
            assert f"asam_jax.{other} " not in text and f"import {other}\n" not in text
