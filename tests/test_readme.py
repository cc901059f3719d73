"""The README's Python runs, top to bottom, as a reader would paste it."""

import pathlib
import re
import tomllib

import jax
import pytest

from experiments.studies import default

ROOT = pathlib.Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_every_python_block_runs():
    blocks = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len(blocks) == 2
    namespace: dict[str, object] = {}
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        for block in blocks:
            exec(compile(block, "README.md", "exec"), namespace)
    assert namespace["params"] and namespace["grads"]


def test_it_is_short():
    assert len(README.splitlines()) <= 110


@pytest.mark.parametrize("extra", ["experiments", "dev"])
def test_each_command_sets_itself_up(extra):
    line = rf"python3 -m venv \.venv && \.venv/bin/pip install -q -e '\.\[{extra}\]' && \S.*"
    assert len(re.findall(rf"^{line}$", README, flags=re.MULTILINE)) == 1


def test_the_address_is_that_of_the_project():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    address = project["urls"]["Repository"]
    for text in (README, (ROOT / "docs" / "install.md").read_text()):
        assert set(re.findall(r"https://github\.com/[\w-]+/asam_jax", text)) == {address}


def test_the_table_is_what_the_result_lines_give(tmp_path):
    copy = tmp_path / "README.md"
    copy.write_text(README)
    default.write_readme(ROOT / "experiments" / "evidence", copy)
    assert copy.read_text() == README
