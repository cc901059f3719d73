"""Two real processes with four devices each do what one with eight does."""

import socket

import jax
import numpy as np
import pytest

from experiments.training.checkpoint import Checkpoints
from experiments.training.processes import STEPS_BETWEEN_TALKS
from tests.cli import lines, ran, start
from tests.runs import loop_of, made

EPOCHS, SUBSET, BATCH = 4, 256, 64  # 16 steps
RUN = ["train", "--model", "mlp", "--perturb", "device", "--epochs", EPOCHS]
RUN += ["--subset", SUBSET, "--batch-size", BATCH]
# The last digits of a metric are rounded, so two equal to 1e-5 can differ by one there.
DIGIT = 1e-4


def free_port():
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def two_processes(workdir, own=((), ())):
    """Exit code, output and errors of each; `own` are the arguments of one alone."""
    address = f"localhost:{free_port()}"
    flags = "--xla_force_host_platform_device_count=4"
    command = [*RUN, "--workdir", workdir, "--distributed"]
    command += ["--coordinator", address, "--num-processes", 2]
    started = [
        start(*command, "--process-id", number, *own[number], XLA_FLAGS=flags)
        for number in range(2)
    ]
    try:
        outputs = [process.communicate(timeout=240) for process in started]
    finally:
        for process in started:
            process.kill()
    return [(p.poll(), *output) for p, output in zip(started, outputs, strict=True)]


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """Two processes that one of them stopped, with a checkpoint that both wrote."""
    workdir = tmp_path_factory.mktemp("two")
    done = two_processes(workdir, own=((), ("--time-limit", "0.01")))
    ((code0, _, first), (code1, _, second)) = done
    assert (code0, code1) == (0, 0), done
    assert "Stopped by process 1, with a checkpoint" in first
    assert "Stopped by time limit of 0.01 s, with a checkpoint" in second
    assert not (workdir / "results.jsonl").exists()
    return workdir


def test_the_state_equals_that_of_one_process(stopped):
    """Restored from the two processes' checkpoint by one process, onto its own eight devices."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        values = dict(epochs=EPOCHS, subset=SUBSET, batch_size=BATCH)
        loop, _ = loop_of(made(model="mlp", perturb="device", devices=8, **values))
        expected = loop.init()
        for step in range(STEPS_BETWEEN_TALKS):
            expected, _ = next(loop.epoch(expected, *divmod(step, SUBSET // BATCH)))
        (folder,) = (stopped / "checkpoints").iterdir()
        checkpoints = Checkpoints(folder, 60.0)
        found = checkpoints.restore(loop.init())
        checkpoints.close()
    assert found is not None and found[0] == STEPS_BETWEEN_TALKS
    for a, b in zip(jax.tree.leaves(found[1]), jax.tree.leaves(expected), strict=True):
        assert a.sharding == b.sharding
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_they_go_on_and_the_first_writes_the_line(stopped, tmp_path):
    (code0, out0, err0), (code1, out1, err1) = two_processes(stopped)
    assert (code0, code1) == (0, 0), (err0, err1)
    (record,) = lines(stopped)
    assert (record["devices"], record["processes"], record["loop"]) == (8, 2, "host")
    assert "digits mlp asam rho 0.5 seed 0" in out0 and "digits" not in out1 + err1
    assert not any((stopped / "checkpoints").iterdir())
    ran(*RUN, "--devices", 8, "--workdir", tmp_path)
    (expected,) = lines(tmp_path)
    assert record["run_id"] == expected["run_id"] and expected["processes"] == 1
    for name, values in expected["metrics"].items():
        np.testing.assert_allclose(record["metrics"][name], values, rtol=1e-5, atol=1.5 * DIGIT)


@pytest.mark.parametrize(
    ("own", "message"),
    [
        (((), ("--seed", 1)), "the processes differ in what they run"),
        ((("--workdir", "/dev/null/runs"), ()), "workdir '/dev/null/runs' cannot be written"),
    ],
)
def test_what_one_cannot_do_ends_both(tmp_path, own, message):
    for code, _, err in two_processes(tmp_path, own=own):
        assert code == 2 and message in err and "Traceback" not in err, err
