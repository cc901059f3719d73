"""What the page of recipes says that a step costs, counted by XLA in the page's own programs."""

import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

PAGE = (pathlib.Path(__file__).parent.parent / "docs" / "recipes.md").read_text()
# Of each variant the optimizer's name on the page, its steps (or how they are made of it), and the
# gradients of a whole batch that each step takes.
COSTS = {
    "exact": ("exact", None, [2]),
    "part16": ("part", ["part_step"], [1 + 1 / 16]),
    "part16 by value_and_grad": ("sgd", ["part_value_step"], [1 + 1 / 16]),
    "every": ("sometimes", (False, True), [1, 2]),
    "looksam": ("looksam", (False, True), [1, 2]),
    "last-friendly": ("remembering", ["one_gradient_step"], [1]),
    "equal rise": ("equal_rise", ["equal_rise_step"], [2]),
    "following": ("following", None, [2]),
    "decoupled": ("decoupled", None, [2]),
    "norms": ("norms", None, [1.4]),
    "frozen": ("frozen", None, [1]),
}
SAVED_BY_XLA = ("norms", "frozen")
CHOOSER = {"ASAM": "2", "`part16`": "1 1/16", "`last-friendly`": "1", "`every4`": "1 1/4"}


@pytest.fixture(scope="module")
def page():
    """The page's names, after all of its Python has run."""
    names: dict = {}
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        for block in re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL):
            exec(compile(block, "recipes.md", "exec"), names)
    return names


def counted(page, tx, steps, compiled):
    """Gradients that each step takes."""
    w, x, y = page["w"], page["x"], page["y"]

    def flops(function, *args):
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            program = function.lower(*args)
            return (program.compile() if compiled else program).cost_analysis()["flops"]

    gradient = flops(jax.jit(jax.grad(page["loss"])), w, x, y)
    return [flops(step, w, tx.init(w), x, y) / gradient for step in steps]


@pytest.mark.parametrize("name", COSTS)
def test_a_step_takes_its_gradients(page, name):
    """eps is one or two percent of a gradient at this size.

    Counted in the program that XLA is handed, which it can only make cheaper; and in what it makes
    of it, where that is the point.
    """
    tx, steps, said = COSTS[name]
    tx = page[tx]
    if steps is None:
        steps = [page["step_of"](tx)]
    elif isinstance(steps, tuple):
        steps = [page["step_of"](tx, perturb=perturb) for perturb in steps]
    else:
        steps = [page[step] for step in steps]
    assert counted(page, tx, steps, name in SAVED_BY_XLA) == pytest.approx(said, abs=0.08)


@pytest.mark.parametrize("group", ["ascents", "descents"])
def test_refinements_take_two_gradients_and_are_in_the_tables(page, group):
    for name, tx in page[group].items():
        assert f"| {name} |" in PAGE
        assert counted(page, tx, [page["step_of"](tx)], False) == pytest.approx([2], abs=0.12)


def test_the_chooser_says_what_is_counted():
    for label, cost in CHOOSER.items():
        assert re.search(rf"^\|.*\| {cost} \|[^|]*\| {re.escape(label)} \|$", PAGE, re.MULTILINE)


def test_only_normalization_layers_take_the_same_gradients(page):
    """As eps made by hand from the layers' own gradients, the others at rest."""
    w, x, y = page["w"], page["x"], page["y"]
    tx, step = page["norms"], page["step_of"](page["norms"])
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        grads = jax.grad(lambda norms: page["loss"]({**w, "norms": norms}, x, y))(w["norms"])
        scales = page["norms_only"](w)["norms"]
        scaled = [t * g for t, g in zip(scales, grads, strict=True)]
        size = jnp.sqrt(sum(jnp.sum(s**2) for s in scaled))
        eps = [0.5 * t * s / size for t, s in zip(scales, scaled, strict=True)]
        norms = [v + e for v, e in zip(w["norms"], eps, strict=True)]
        expected = jax.grad(page["loss"])({**w, "norms": norms}, x, y)
        after, _ = step(w, tx.init(w), x, y)
    for name in w:
        for old, new, g in zip(w[name], after[name], expected[name], strict=True):
            np.testing.assert_allclose((old - new) / 0.01, g, atol=1e-3 * float(jnp.abs(g).max()))
