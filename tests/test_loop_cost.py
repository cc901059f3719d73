"""`benchmark loop`: a trace whose totals are known, the lines, and what `--torch` refuses."""

import functools
import sys
import types

import jax
import pytest
from jax.profiler import ProfileData

from experiments.benchmarks import loop_cost, torch_step, trace
from experiments.config import run_config
from experiments.config.errors import ConfigError
from tests.cli import call

pytestmark = pytest.mark.usefixtures("flax_promotes")


def plane(name, lines, stat=False):
    """A plane in the profiler's text form; a line is a name and events (name, start, length)."""
    names = sorted({event for _, events in lines for event, _, _ in events})
    text = f'planes {{ name: "{name}"\n'
    for number, event in enumerate(names, start=1):
        text += f'event_metadata {{ key: {number} value {{ id: {number} name: "{event}" }} }}\n'
    text += 'stat_metadata { key: 1 value { id: 1 name: "hlo_op" } }\n'
    stats = 'stats { metadata_id: 1 str_value: "x" }' if stat else ""
    for number, (line, events) in enumerate(lines):
        text += f'lines {{ id: {number} name: "{line}" timestamp_ns: 1000\n'
        for event, start, length in events:
            how = f"offset_ps: {1000 * start} duration_ps: {1000 * length}"
            text += f"events {{ metadata_id: {names.index(event) + 1} {how} {stats} }}\n"
        text += "}\n"
    return text + "}\n"


def test_a_gpus_time_is_that_of_its_streams():
    """Two streams, 100 ns from first to last: busy in 0-40, 30-70 and 90-100, idle in the rest."""
    streams = [
        ("Stream #1(Compute)", [("fusion_1", 0, 40), ("conv", 90, 10)]),
        ("Stream #2(Compute)", [("fusion_2", 30, 40)]),
        ("XLA Ops", [("fusion_1", 0, 100)]),
        ("Steps", [("1", 0, 500)]),
    ]
    host = plane("/host:CPU", [("python", [("call", 0, 900)])], stat=True)
    found = trace.read(ProfileData.from_text_proto(host + plane("/device:GPU:0", streams)))
    assert found.kernels == (
        trace.Kernel("fusion", 2, pytest.approx(80e-9)),
        trace.Kernel("conv", 1, pytest.approx(10e-9)),
    )
    assert found.launches == 3
    assert found.seconds == pytest.approx(100e-9) and found.busy_seconds == pytest.approx(80e-9)
    assert found.idle == pytest.approx(0.2)


def test_a_cpus_loop_counts_with_its_own_time():
    """The loop takes 100 ns of which two bodies are 80, one of them with 15 within it."""
    events = [("while.5", 0, 100), ("body.1", 10, 40), ("inner", 20, 15), ("body.2", 55, 40)]
    text = plane("/host:CPU", [("tf_XLA", events)], stat=True)
    text += plane("/host:metadata", [])
    found = trace.read(ProfileData.from_text_proto(text))
    times = {kernel.name: (kernel.launches, kernel.seconds) for kernel in found.kernels}
    assert times == {
        "body": (2, pytest.approx(65e-9)),
        "while": (1, pytest.approx(20e-9)),
        "inner": (1, pytest.approx(15e-9)),
    }
    assert found.launches == 2 and found.idle == pytest.approx(0)


def test_a_tpus_time_is_that_of_its_operations():
    lines = [("XLA Ops", [("dot.3", 5, 10)]), ("XLA Modules", [("jit_step", 0, 50)])]
    found = trace.read(ProfileData.from_text_proto(plane("/device:TPU:0", lines)))
    assert found.kernels == (trace.Kernel("dot", 1, pytest.approx(10e-9)),)


def test_a_trace_of_nothing_is_refused():
    text = plane("/host:CPU", [("python", [("call", 0, 900)])])
    with pytest.raises(ConfigError, match="holds no operation of a device; leave --trace out"):
        trace.read(ProfileData.from_text_proto(text))


def test_it_runs_to_its_lines_and_its_part_of_the_report(tmp_path):
    words = ["--model", "mlp", "--images", 64, "--batch-size", 16, "--rounds", 2, "--trace"]
    done = call("benchmark", "loop", *words, "--workdir", tmp_path)
    assert done.returncode == 0, done.stderr
    (section,) = loop_cost.sections(tmp_path)
    assert section.body.split("\n\n```")[0] in done.stdout
    (path,) = tmp_path.glob("benchmark_loop_mlp_asam_16_float32_default_host_cpu.jsonl")
    assert path.exists() and section.title.startswith("Speed of the loop: mlp, asam, batch 16")
    ours = loop_cost.result_lines.read_kind(tmp_path, loop_cost.KIND)[0]
    assert ours["steps_per_epoch"] == 4 and ours["versions"]["jax"] == jax.__version__
    assert ours["epoch_seconds"] == pytest.approx(4 * ours["step_seconds"])
    assert ours["images_per_second"] == pytest.approx(16 / ours["step_seconds"])
    found = ours["trace"]
    assert (
        found["steps"] == loop_cost.TRACED_STEPS and 0 < found["busy_seconds"] <= found["seconds"]
    )
    assert (
        sum(kernel["seconds"] for kernel in found["kernels"]) <= 1.001 * found["operations_seconds"]
    )
    assert f"{found['launches_per_step']:.4g} launches a step" in section.body


def fake_torch(cuda):
    return types.SimpleNamespace(
        __version__="9.9+cpu", cuda=types.SimpleNamespace(is_available=lambda: cuda)
    )


@pytest.mark.parametrize(
    ("torch", "backend", "message"),
    [
        (None, "cpu", "--torch needs PyTorch, which is not installed; run pip install torch"),
        (
            fake_torch(False),
            "gpu",
            r"JAX computes on a GPU and this PyTorch \(9.9\+cpu\) sees none",
        ),
        (fake_torch(True), "tpu", "--torch has no counterpart of JAX's tpu; leave it out"),
    ],
)
def test_torch_without_a_matching_device_is_refused(monkeypatch, torch, backend, message):
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    with pytest.raises(ConfigError, match=message):
        torch_step.steps("resnet8", 2)
    config = run_config.make("cifar10", "asam", model="resnet8")
    with pytest.raises(ConfigError, match=message):
        loop_cost.measure(config, images=256, rounds=1, torch=True)


def test_pytorch_runs_beside_it(monkeypatch):
    """Compiled as far as its graph: PyTorch's own compiler takes minutes on a CPU."""
    torch = pytest.importorskip("torch", reason="needs PyTorch, which this project does not")
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    config = run_config.make("cifar10", "asam", model="resnet8", batch_size=4, dtype="bfloat16")
    records = loop_cost.measure(config, images=8, rounds=1, torch=True)
    forms = [record["form"] for record in records]
    assert forms == ["JAX", "PyTorch, eager", "PyTorch, compiled"]
    assert all(record["tf32"] is False for record in records[1:])
    assert "on the same device, bfloat16, TF32 off" in loop_cost.describe(records)
