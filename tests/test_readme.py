"""The README's address and table; its Python runs in test_docs.py."""

import pathlib
import re
import tomllib

from experiments.studies import default

ROOT = pathlib.Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


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
