"""What the benchmarks of speed count, what they store, and what they say of stored lines."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import asam_jax
from experiments import benchmarks
from experiments.benchmarks import leaves, step
from experiments.benchmarks.problem import plain_formula
from experiments.models.plain import Mlp
from experiments.training import result_lines
from experiments.training.variants import AUTHORS, VARIANTS
from tests.runs import narrow

pytestmark = pytest.mark.usefixtures("flax_promotes")

CHEAP = ("every4", "part16", "last", "friendly")
EVIDENCE = Path(__file__).parents[1] / "experiments" / "evidence"


@pytest.fixture(scope="module")
def measured():
    with (
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
        narrow(Mlp, 32),
    ):
        return step.measure(step.Step("mlp", 256, repeats=1, variants=CHEAP))


def test_two_gradients_are_twice_the_work(measured):
    flops = {record["form"]: record.get("flops_over_sgd") for record in measured}
    assert flops["SGD"] == 1
    for name, ratio in flops.items():
        if "SAM" in name or "contrib.sam, opaque" in name or name == "friendly":
            assert 1.9 < ratio < 2.2, name


def test_cheap_variants_do_the_work_that_their_names_say(measured):
    flops = {record["form"]: record["flops_over_sgd"] for record in measured}
    for name in CHEAP:
        assert flops[name] == pytest.approx(VARIANTS[name].gradients, abs=0.1)


def test_only_what_alternates_or_remembers_keeps_a_copy_of_the_parameters(measured):
    copies = {r["form"]: r["parameter_copies"] for r in measured if "parameter_copies" in r}
    more = {name for name, value in copies.items() if round(value)}
    assert more == {"ASAM, alternating", "optax.contrib.sam, transparent", "last", "friendly"}


def test_the_lines_say_where_they_come_from_and_become_a_table(measured):
    for record in measured:
        assert record["kind"] == "benchmark_step" and record["seconds"] > 0
        assert record["versions"]["jax"] == jax.__version__ and record["device"]["kind"]
    text = step.describe(measured)
    assert "| ASAM, filter-wise" in text and "base update" not in text


def test_steps_are_compared_by_their_parameter_arrays(tmp_path):
    leaves.run(leaves.Leaves((3,), repeats=1, workdir=tmp_path))
    lines = result_lines.read_kind(tmp_path, leaves.KIND)
    assert [line["form"] for line in lines] == list(leaves.NAMES)
    (section,) = leaves.sections(tmp_path)
    assert "| 3      | optax.contrib.sam |" in section.body


def test_the_plain_formulas_eps_is_ours():
    params, x = leaves.network(3), jnp.ones((2, leaves.WIDTH))
    grads = jax.grad(leaves.loss)(params, x)
    expected = asam_jax.perturbation(params, grads, rho=leaves.RHO, operator=AUTHORS)
    found = plain_formula(params, grads, leaves.RHO)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-7)


def test_stored_lines_of_every_benchmark_make_their_part_of_the_report():
    titles = " ".join(section.title for section in benchmarks.sections(EVIDENCE))
    for words in ("Cost of a step", "Compilation by", "not here"):
        assert words in titles
