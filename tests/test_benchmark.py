"""`benchmark step`: what it counts, and what it says without PyTorch."""

import json
import sys

import chex
import jax
import jax.numpy as jnp
import pytest

import asam_jax
from experiments.benchmarks import kernel_count, leaves_cost, sharpness_cost, step_cost, torch_step
from experiments.config.errors import ConfigError
from experiments.config.step_forms import STEP_FORMS
from experiments.training import result_lines

pytestmark = pytest.mark.usefixtures("flax_promotes")


CHEAP = ("every4", "part16", "last", "friendly")


@pytest.fixture(scope="module")
def measured():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        return step_cost.measure("mlp", 256, "float32", repeats=1, torch=False, cheap=CHEAP)


def test_two_gradients_are_twice_the_work(measured):
    flops = {record["form"]: record["flops_over_sgd"] for record in measured}
    assert flops["SGD"] == 1
    for name, ratio in flops.items():
        if "SAM" in name or "contrib.sam" in name or name == "friendly":
            assert 1.9 < ratio < 2.1, name


def test_cheap_forms_do_the_work_that_their_names_say(measured):
    """XLA counts some 30 FLOPs a weight for eps itself, beside 1058 for this batch's gradient."""
    flops = {record["form"]: record["flops_over_sgd"] for record in measured}
    for name in CHEAP:
        assert flops[name] == pytest.approx(STEP_FORMS[name].gradients, abs=0.05)


def test_only_what_alternates_keeps_a_copy_of_the_parameters(measured):
    copies = {record["form"]: record["parameter_copies"] for record in measured}
    kept = {name: round(value) for name, value in copies.items() if value is not None}
    assert [kept.pop(name) for name in CHEAP] == [0, 0, 1, 1]
    assert kept == {
        "SGD": 0,
        "SAM": 0,
        "ASAM, element-wise": 0,
        "ASAM, filter-wise": 0,
        "ASAM, alternating": 1,
        "optax.contrib.sam, opaque": 0,
        "optax.contrib.sam, transparent": 1,
    }


def test_the_lines_say_where_they_come_from_and_become_a_table(measured):
    for record in measured:
        assert record["kind"] == "benchmark_step" and record["seconds"] > 0
        assert record["versions"]["jax"] == jax.__version__ and record["device"]["kind"]
    text = step_cost.describe(measured)
    assert "mlp, batch 256, float32" in text and "| ASAM, filter-wise" in text
    assert "base update" not in text and "PyTorch" not in text
    assert "% of SGD's step." in text


def test_sharpness_is_timed_beside_its_floor():
    record = sharpness_cost.measure("mlp", 32, 8, repeats=1)
    assert record["time_over_floor"] == pytest.approx(record["seconds"] / record["floor_seconds"])
    assert "mlp on 32 images in groups of 8" in sharpness_cost.describe(record)
    with pytest.raises(ConfigError, match="m=5 does not divide the 32 images"):
        sharpness_cost.measure("mlp", 32, 5, repeats=1)


def test_steps_are_compared_by_their_parameter_arrays(tmp_path, monkeypatch):
    """And eps has three kernels for each array at most, where XLA fuses what it reduces."""

    def small():
        x = jnp.ones((2, leaves_cost.WIDTH))
        return lambda params: leaves_cost.loss(params, x), leaves_cost.network(12)

    monkeypatch.setattr(kernel_count, "NETWORKS", {"dense": small})
    leaves_cost.run(tmp_path, [3], repeats=1)
    (line,) = result_lines.read_kind(tmp_path, kernel_count.KIND)
    assert line["leaves"] == 12 and 12 <= line["kernels_fused"] <= 3 * 12 + 6
    (section,) = leaves_cost.sections(tmp_path)
    text = (tmp_path / "benchmark_leaves.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert [line["form"] for line in lines] == list(leaves_cost.NAMES)
    assert all(line["leaves"] == 3 and line["hlo_instructions"] > 0 for line in lines)
    assert "| 3      | optax.contrib.sam |" in section.body
    name, draw = section.pictures[0]
    draw(tmp_path / name)
    assert (tmp_path / name).stat().st_size > 10_000
    with pytest.raises(ConfigError, match="--leaves must be positive"):
        leaves_cost.run(tmp_path, [0], repeats=1)


def test_the_plain_formulas_gradient_is_the_links():
    params, x = leaves_cost.network(3), jnp.ones((2, leaves_cost.WIDTH))
    expected = asam_jax.value_and_grad(leaves_cost.loss, rho=leaves_cost.RHO)(params, x)[1]
    chex.assert_trees_all_close(leaves_cost._plain(params, x), expected, rtol=1e-4, atol=1e-7)


def test_without_pytorch_the_error_says_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ConfigError, match="--torch needs PyTorch, which is not installed; run pip"):
        torch_step.steps("resnet8", 2)


def test_pytorchs_perturbation_is_asams():
    torch = pytest.importorskip("torch", reason="needs PyTorch, which this project does not")
    layer = torch.nn.Linear(3, 2)
    before = {name: p.detach().clone() for name, p in layer.named_parameters()}
    for p in layer.parameters():
        p.grad = torch.randn_like(p)
    grads = {name: p.grad.clone() for name, p in layer.named_parameters()}
    torch_step._ascend(torch, layer, 0.5, adaptive=True)
    scale = {"weight": before["weight"].abs() + 0.01, "bias": torch.ones(2)}
    norm = torch.sqrt(sum((scale[n] * grads[n]).square().sum() for n in grads))
    for name, p in layer.named_parameters():
        expected = before[name] + 0.5 * scale[name] ** 2 * grads[name] / norm
        assert torch.allclose(p.detach(), expected, atol=1e-6)
