"""What the page of recipes says that a step costs, counted by XLA in the page's own programs."""

import functools
import pathlib
import re
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import asam_jax

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
    "functional": ("functional", ["functional_step"], [2]),
    "preconditioned": ("preconditioned", None, [2]),
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


@pytest.mark.parametrize("operator", ["identity", "every leaf"])
def test_functional_sam_is_the_jacobian_at_w_plus_eps_times_the_derivative_at_w(page, operator):
    """J(w + eps)^T dL/df(w), with J and eps written out."""
    w, x, y = page["w"], page["x"][:16], page["y"][:16]
    scaled = operator == "every leaf"
    scales = asam_jax.elementwise(eta=0.0, adapt=asam_jax.all_leaves) if scaled else None
    tx = asam_jax.sam(page["sgd"], rho=2.0, operator=scales)

    @jax.jit
    def by_hand(w):
        t = jax.tree.map(jnp.abs if scaled else jnp.ones_like, w)
        tg = jax.tree.map(jnp.multiply, t, jax.grad(page["loss"])(w, x, y))
        size = jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(tg)))
        at = jax.tree.map(lambda w, t, tg: w + 2.0 * t * tg / size, w, t, tg)
        jacobian = jax.jacobian(page["outputs"])(at, x)
        of_outputs = 2 * (page["outputs"](w, x) - y) / len(y)
        return jacobian, of_outputs, jax.grad(page["loss"])(at, x, y)

    with (
        mock.patch.dict(page, functional=tx),
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
    ):
        page["functional_step"].clear_cache()
        after, _ = page["functional_step"](w, tx.init(w), x, y)
        jacobian, of_outputs, sam = by_hand(w)
    for old, new, j, of_sam in zip(*map(jax.tree.leaves, (w, after, jacobian, sam)), strict=True):
        expected = np.tensordot(of_outputs, j, axes=1)
        close = dict(rtol=0, atol=1e-3 * np.abs(expected).max())
        np.testing.assert_allclose((old - new) / 0.01, expected, **close)
        assert not np.allclose(of_sam, expected, **close)


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


def test_devices_decide_alike_where_the_gradient_is_long(page):
    """g02: devices that decided alone hung. g18: after one overflow no step was perturbed again."""
    tx = asam_jax.sharpness_aware(0.5, axis_name="data", perturb_axis_name="data")
    w, share = page["w"], (2, 16, 64)

    @functools.partial(jax.pmap, axis_name="data", in_axes=(None, None, 0, 0))
    def step(moments, state, x, y):
        grad_fn = lambda w: jax.grad(page["loss"])(w, x, y)  # noqa: E731
        grads = grad_fn(w)
        perturb, moments = page["is_long"](moments, grads, 0.0, 0.5, axis_name="data")
        updates, _ = tx.update(grads, state, w, grad_fn=grad_fn, perturb=perturb)
        return moments, perturb, updates

    moments, decisions = (jnp.zeros(()), jnp.zeros(())), []
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        for number in range(12):
            x = jax.random.normal(jax.random.key(number), share)
            y = jnp.array([[1.0], [5.0]]) * jnp.ones(share[:2])
            y = y.at[1, 0].set(jnp.inf if number == 4 else 5.0 + number % 3)
            each, perturb, updates = step(moments, tx.init(w), x, y)
            moments = jax.tree.map(lambda m: m[0], each)
            assert all(np.isfinite(m) for m in moments)
            assert perturb[0] == perturb[1]
            for u in jax.tree.leaves(updates):
                np.testing.assert_array_equal(u[0], u[1])
            decisions.append(bool(perturb[0]))
    assert set(decisions[5:]) == {True, False}
