"""What the page of recipes says that a step costs, counted by XLA in the page's own programs."""

import itertools
import pathlib
import re
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

PAGE = (pathlib.Path(__file__).parent.parent / "docs" / "recipes.md").read_text()
ROW = re.compile(r"^\| \[([^\]]+)\]\(#[\w-]+\) \| (.+) \| ([^|]+) \| [^|]+ \|$", flags=re.MULTILINE)
COSTS = {name: cost for name, _, cost in ROW.findall(PAGE)}

SAVED_BY_XLA = ("only normalization layers climb", "some leaves train, the others rest")


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


def flops(function, *args, compiled):
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        program = function.lower(*args)
        return (program.compile() if compiled else program).cost_analysis()["flops"]


def test_every_row_has_its_steps(page):
    assert len(COSTS) > 20
    assert page["recipes"].keys() == COSTS.keys()


@pytest.mark.parametrize("name", COSTS)
def test_a_step_costs_what_the_page_says(page, name):
    """In gradients; eps is one or two percent of one at this size.

    Counted in the program that XLA is handed, which it can only make cheaper; and in what it makes
    of it, where that is the point.
    """
    w, x, y = page["w"], page["x"], page["y"]
    tx, steps = page["recipes"][name]
    compiled = name in SAVED_BY_XLA
    gradient = flops(jax.jit(jax.grad(page["loss"])), w, x, y, compiled=compiled)
    state = tx.init(w)
    counted = [flops(step, w, state, x, y, compiled=compiled) / gradient for step in steps]
    said = [number(text) for text in re.split(r"[,:]", COSTS[name])[0].split(" or ")]
    for got, expected in itertools.zip_longest(counted, said):
        assert got == pytest.approx(expected, abs=0.08)


def test_only_normalization_layers_take_the_same_gradients(page):
    """As eps made by hand from the layers' own gradients, the others at rest."""
    w, x, y = page["w"], page["x"], page["y"]
    tx, (step,) = page["recipes"]["only normalization layers climb"]
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        grads = jax.grad(lambda norms: page["loss"]({**w, "norms": norms}, x, y))(w["norms"])
        scaled = [(jnp.abs(t) + 0.01) * g for t, g in zip(w["norms"], grads, strict=True)]
        size = jnp.sqrt(sum(jnp.sum(s**2) for s in scaled))
        norms = [
            t + 0.5 * (jnp.abs(t) + 0.01) * s / size
            for t, s in zip(w["norms"], scaled, strict=True)
        ]
        expected = jax.grad(page["loss"])({**w, "norms": norms}, x, y)
        after, _ = step(w, tx.init(w), x, y)
    for name in w:
        for old, new, g in zip(w[name], after[name], expected[name], strict=True):
            np.testing.assert_allclose((old - new) / 0.01, g, atol=1e-3 * float(jnp.abs(g).max()))


def test_the_average_is_that_of_the_period():
    for name, every in (
        ("a step that touches no other batch size", 4),
        ("fewer ascents still", 16),
    ):
        average = re.search(r": ([\d/ ]+) on average", COSTS[name])
        assert average and number(average[1]) == 1 + 1 / every
