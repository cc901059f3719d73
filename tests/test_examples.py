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
