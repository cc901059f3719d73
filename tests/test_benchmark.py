"""What the benchmarks of speed count, what they store, and what they say of stored lines."""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import asam_jax
from experiments.benchmarks import BENCHMARKS, leaves, loop, sharpness, step, torch_peers
from experiments.config.errors import ConfigError
from experiments.config.run import Run
from experiments.training import result_lines
from experiments.training.variants import VARIANTS

pytestmark = pytest.mark.usefixtures("flax_promotes")

CHEAP = ("every4", "part16", "last", "friendly")
EVIDENCE = Path(__file__).parents[1] / "experiments" / "evidence"


@pytest.fixture(scope="module")
def measured():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
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
    assert "| ASAM, filter-wise" in text and "% of SGD's step." in text
    assert "base update" not in text and "PyTorch 2" not in text


def test_the_loop_that_trains_is_timed(tmp_path, capsys):
    run = Run(dataset="cifar10", model="mlp", batch_size=16)
    loop.run(loop.Loop(run=run, images=32, rounds=1, workdir=tmp_path))
    assert "An epoch of 32 images takes" in capsys.readouterr().out
    (line,) = result_lines.read_kind(tmp_path, loop.KIND)
    assert line["steps_per_epoch"] == 2 and line["images_per_second"] > 0
    (section,) = loop.sections(tmp_path)
    assert section.title == "Speed of the loop: mlp, asam, host, batch 16, float32"


def test_sharpness_is_timed_beside_its_floor():
    record = sharpness.measure(sharpness.Sharpness("mlp", 32, 8, repeats=1))
    assert record["time_over_floor"] == pytest.approx(record["seconds"] / record["floor_seconds"])
    assert "mlp on 32 images in groups of 8" in sharpness.describe(record)
    with pytest.raises(ConfigError, match="m=5 does not divide the 32 images"):
        sharpness.measure(sharpness.Sharpness("mlp", 32, 5))


def test_steps_are_compared_by_their_parameter_arrays(tmp_path):
    leaves.run(leaves.Leaves((3,), repeats=1, workdir=tmp_path))
    lines = result_lines.read_kind(tmp_path, leaves.KIND)
    assert [line["form"] for line in lines] == list(leaves.NAMES)
    (section,) = leaves.sections(tmp_path)
    assert "| 3      | optax.contrib.sam |" in section.body
    name, draw = section.pictures[0]
    draw(tmp_path / name)
    assert (tmp_path / name).stat().st_size > 10_000
    with pytest.raises(ConfigError, match="--leaves must be positive"):
        leaves.run(leaves.Leaves((0,)))


def test_the_plain_formulas_gradient_is_ours():
    params, x = leaves.network(3), jnp.ones((2, leaves.WIDTH))
    expected = asam_jax.value_and_grad(leaves.loss, rho=leaves.RHO)(params, x)[1]
    found = leaves.plain(params, x)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-7)


def test_stored_lines_of_every_benchmark_make_their_part_of_the_report():
    found = {
        name: sys.modules[kind.__module__].sections(EVIDENCE) for name, kind in BENCHMARKS.items()
    }
    assert found["step"] and found["leaves"] and found["sharpness"] and found["compiled"]
    assert "| pytorch_optimizer, LookSAM" in found["step"][0].body


def test_without_pytorch_the_error_says_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ConfigError, match="--torch needs PyTorch, which is not installed; run pip"):
        torch_peers.steps("resnet8", 2)
