"""Each example in docs/examples runs as a script, and its loss falls."""

import pathlib
import re
import runpy

import jax
import pytest

ROOT = pathlib.Path(__file__).parent.parent
EXAMPLES = sorted((ROOT / "docs" / "examples").glob("*.py"))
LOSS = re.compile(r"(\d+\.\d+) -> (\d+\.\d+)")


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_loss_falls(path, capsys):
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        runpy.run_path(str(path), run_name="__main__")
    losses = LOSS.findall(capsys.readouterr().out)
    assert losses
    for first, last in losses:
        assert float(last) < 0.6 * float(first)


def test_an_example_fits_a_screen_and_is_on_the_page():
    page = (ROOT / "docs" / "examples.md").read_text()
    for path in EXAMPLES:
        assert len(path.read_text().splitlines()) < 80, path.name
        assert f"(examples/{path.name})" in page
        assert f"python docs/examples/{path.name}" in path.read_text()
