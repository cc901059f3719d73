"""What is read from a program's text, against programs whose cost is known."""

import jax
import jax.numpy as jnp
import pytest

from experiments.benchmarks import compiled, compiled_report, hlo
from experiments.config.errors import ConfigError

PROGRAM = """HloModule jit_step, entry_computation_layout={()->f32[8]}

%body (p: (s32[], f32[4,8])) -> (s32[], f32[4,8]) {
  %p = (s32[], f32[4,8]) parameter(0)
  %x = f32[4,8]{1,0:T(8,128)} get-tuple-element(%p), index=1
  %g = f32[32,8]{1,0} all-gather(%x), channel_id=1, replica_groups=[1,8]<=[8], dimensions={0}
  ROOT %t = (s32[], f32[4,8]) tuple(%i, %x)
}

%condition (p: (s32[], f32[4,8])) -> pred[] {
  %n = s32[]{:T(128)} constant(12)
  %p = (s32[], f32[4,8]) parameter(0)
  ROOT %lt = pred[] compare(%i, %n), direction=LT
}

%rare (a: f32[8]) -> f32[8] {
  ROOT %r = f32[8]{0} all-reduce(%a), replica_groups={{0,1},{2,3}}, to_apply=%add
}

%often (a: f32[8]) -> f32[8] {
  ROOT %r = f32[8]{0} copy(%a)
}

%all-reduce-scatter.4 (a: f32[64]) -> f32[8] {
  %r = f32[64]{0} all-reduce(%a), replica_groups=[1,8]<=[8], to_apply=%add
  ROOT %s = f32[8]{0} dynamic-slice(%r, %i), dynamic_slice_sizes={8}
}

ENTRY %main (a: f32[8]) -> f32[8] {
  %a = f32[8]{0} parameter(0)
  %w = (s32[], f32[4,8]) while(%t), condition=%condition, body=%body
  %s = (bf16[100]{0}, bf16[800]{0}) all-gather-start(%b), replica_groups=[1,8]<=[8]
  %c = f32[8]{0} conditional(%k, %a, %a), branch_computations={%often, %rare}
  %f = f32[8]{0} fusion(%b), kind=kCustom, calls=%all-reduce-scatter.4
  ROOT %m = f32[8]{0} fusion(%c), kind=kLoop, calls=%often
}
"""


def test_collectives_count_as_often_as_their_loop_runs():
    program = hlo.Program(PROGRAM)
    looped, start, reduce, scatter = program.collectives(8)
    assert looped == hlo.Collective("all-gather", 32 * 8 * 4, 8, 12)
    assert looped.sent == 12 * 1024 * 7 / 8
    assert start == hlo.Collective("all-gather", 1600, 8, 1)
    assert reduce == hlo.Collective("all-reduce", 32, 2, 1) and reduce.sent == 32
    assert scatter == hlo.Collective("reduce-scatter", 32, 8, 1) and scatter.sent == 7 * 32
    assert program.kernels() == 5
    assert hlo.summed([looped, start]) == {
        "all-gather": dict(count=2, run=13, bytes=12 * 1024 + 1600)
    }


def products(function, *arguments):
    traced = jax.jit(function).trace(*arguments)
    return hlo.product_flops(traced.jaxpr), dict(traced.lower().cost_analysis() or {})["flops"]


def test_products_and_convolutions_count_as_xla_counts_them():
    x, w = jnp.ones((3, 4, 5)), jnp.ones((5, 6))
    found, cost = products(lambda x, w: x @ w, x, w)
    assert found == cost == 2 * 3 * 4 * 5 * 6
    images, kernel = jnp.ones((2, 8, 8, 3)), jnp.ones((3, 3, 3, 4))

    def convolution(images, kernel):
        how = dict(dimension_numbers=("NHWC", "HWIO", "NHWC"))
        return jax.lax.conv_general_dilated(images, kernel, (2, 2), "SAME", **how)

    for function in (convolution, jax.grad(lambda *a: (convolution(*a) ** 2).sum(), (0, 1))):
        found, cost = products(function, images, kernel)
        assert found == pytest.approx(cost, rel=0.02)  # XLA counts a few sums, too


def test_a_loop_counts_as_often_as_it_runs_and_a_condition_its_costliest_branch():
    x = jnp.ones((4, 4))

    def function(x):
        x = jax.lax.scan(lambda x, _: (x @ x, None), x, length=7)[0]
        return jax.lax.cond(x[0, 0] > 0, lambda: x @ x @ x, lambda: x @ x)

    assert products(function, x)[0] == 9 * 2 * 4**3


def line(variant, **more):
    collectives = {"all-reduce": dict(count=2, run=2, bytes=100)}
    found = dict(topology="v5e:2x4", chips=8, model="resnet20", variant=variant, leaves=65)
    found |= dict(shard_bytes=1e6, argument_bytes=2e6, temporary_bytes=1e7, peak_bytes=1.2e7)
    found |= dict(flops=1e12, bytes=1e9)
    found |= dict(product_flops=2e12, kernels=10, sent_bytes=1e6, compile_seconds=3)
    found |= dict(command="python -m experiments benchmark compiled", versions={"jax": "0.10.2"})
    return found | dict(collectives=collectives, kind="compiled", device={}) | more


def test_a_bound_is_the_largest_of_three():
    found = compiled_report.bound(line("base"))
    assert found == {"FLOPs": 2e12 / 197e12, "memory": 1e9 / 819e9, "links": 1e6 / 200e9}


def test_targets_stand_beside_what_was_reached():
    exact = line("exact", flops=2.0005e12, product_flops=4e12, temporary_bytes=1.2e7)
    exact["collectives"] = {"all-reduce": dict(count=6, run=6, bytes=300)}
    of = {r["variant"]: r for r in (line("base"), exact, line("gsam", peak_bytes=1.25e7))}
    of = {name: r | dict(model="transformer_1b") for name, r in of.items()}
    found = {what: (most, got) for what, _, most, got in compiled_report.targets(of)}
    assert found == {
        "FLOPs by XLA's count": (2.001, 2.0005),
        "FLOPs of products": (2.001, 2.0),
        "all-reduces": (5, 6),
        "all-gathers": (0, 0),
        "temporaries": (1.002, 1.2),
        "memory at the peak": (1.002, 1.0),
        "gsam": (1.1, 0.5),
    }
    kernels = {"two gradients": 100, "plain formula": 230, "eps": 210}
    on_gpu = {n: line(n, kernels=k, topology="h100:8") for n, k in kernels.items()}
    ((what, _, most, got),) = compiled_report.targets(on_gpu)
    assert what == "kernels that eps adds"
    assert (most, got) == (pytest.approx(2.3), pytest.approx(110 / 65))


def test_lines_become_tables_and_a_picture_and_are_not_compiled_again(tmp_path, capsys):
    from experiments.training import result_lines

    for variant in ("base", "exact"):
        result_lines.append(tmp_path, line(variant))
    given = compiled.Compiled(model=("resnet20",), variant=("base", "exact"), workdir=tmp_path)
    compiled.run(given)
    assert "| exact | 2.0 " in capsys.readouterr().out
    (section,) = compiled_report.sections(tmp_path)
    assert section.title == "On machines that were not here"
    assert "bound and not a measurement" in section.body and "10.15 (FLOPs)" in section.body
    name, draw = section.pictures[0]
    draw(tmp_path / name)
    assert (tmp_path / name).stat().st_size > 5_000


def test_what_cannot_be_compiled_is_refused():
    with pytest.raises(ConfigError, match="unknown chip of --topology 'v99'"):
        compiled.devices_of("v99:2x2")
    with pytest.raises(ConfigError, match="unknown model 'resnet21'"):
        compiled.run(compiled.Compiled(model=("resnet21",)))
