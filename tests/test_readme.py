"""The README's Python runs, top to bottom, as a reader would paste it."""

import pathlib
import re

import jax
import pytest

from experiments.reporting import readme

ROOT = pathlib.Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_every_python_block_runs():
    blocks = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len(blocks) >= 2
    namespace: dict[str, object] = {}
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        for block in blocks:
            exec(compile(block, "README.md", "exec"), namespace)
    assert namespace["params"] and namespace["grads"]


def test_it_is_short():
    assert len(README.splitlines()) <= 150


def test_the_first_example_is_fifteen_lines():
    first = re.search(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert first is not None
    lines = [line for line in first.group(1).splitlines() if line.strip()]
    assert len(lines) <= 15


@pytest.mark.parametrize("extra", ["experiments", "dev"])
def test_each_command_sets_itself_up(extra):
    line = rf"python3 -m venv \.venv && \.venv/bin/pip install -q -e '\.\[{extra}\]' && \S.*"
    assert len(re.findall(rf"^{line}$", README, flags=re.MULTILINE)) == 1


def test_the_table_is_what_the_result_lines_give():
    text = README.split(readme.BEGIN)[1].split(readme.END)[0]
    assert text.strip() == readme.table(ROOT / "experiments" / "evidence")


def test_the_table_shows_sgd_below_sam_below_asam():
    table = README.split(readme.BEGIN)[1].split(readme.END)[0]
    rows = [line for line in table.splitlines() if re.match(r"\| (SGD|SAM|ASAM) ", line)]
    final = [float(row.split("|")[4].split("±")[0]) for row in rows]
    assert len(final) == 3 and final == sorted(final) and len(set(final)) == 3
