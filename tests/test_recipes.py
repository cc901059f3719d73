"""What the page of recipes says that a step costs, counted by XLA in the page's own programs."""

import itertools
import pathlib
import re
from fractions import Fraction

import jax
import pytest

PAGE = (pathlib.Path(__file__).parent.parent / "docs" / "recipes.md").read_text()
ROW = re.compile(r"^\| \[([^\]]+)\]\(#[\w-]+\) \| (.+) \| ([^|]+) \| [^|]+ \|$", flags=re.MULTILINE)
COSTS = {name: cost for name, _, cost in ROW.findall(PAGE)}


@pytest.fixture(scope="module")
def page():
    """The page's names, after all of its Python has run."""
    names: dict[str, object] = {}
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        for block in re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL):
            exec(compile(block, "recipes.md", "exec"), names)
    return names


def number(text):
    """`1 1/16` or `2`."""
    return float(sum(map(Fraction, text.split())))


def flops(function, *args):
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        return function.lower(*args).compile().cost_analysis()["flops"]


def test_every_row_has_its_steps(page):
    assert len(COSTS) > 20
    assert page["recipes"].keys() == COSTS.keys()


@pytest.mark.parametrize("name", COSTS)
def test_a_step_costs_what_the_page_says(page, name):
    """In gradients; eps is one or two percent of one at this size."""
    w, x, y = page["w"], page["x"], page["y"]
    tx, steps = page["recipes"][name]
    gradient = flops(jax.jit(jax.grad(page["loss"])), w, x, y)
    counted = [flops(step, w, tx.init(w), x, y) / gradient for step in steps]
    said = [number(text) for text in re.split(r"[,:]", COSTS[name])[0].split(" or ")]
    for got, expected in itertools.zip_longest(counted, said):
        assert got == pytest.approx(expected, abs=0.08)


def test_the_average_is_that_of_the_period():
    for name, every in (
        ("a step that touches no other batch size", 4),
        ("fewer ascents still", 16),
    ):
        average = re.search(r": ([\d/ ]+) on average", COSTS[name])
        assert average and number(average[1]) == 1 + 1 / every
