"""Two real processes with four devices each do what one with eight does."""

import json
import os
import pathlib
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest

from experiments.training.checkpoint import Checkpoints
from experiments.training.processes import STEPS_BETWEEN_TALKS
from tests import cli
from tests.cli import lines, ran
from tests.runs import loop_of, made

ROOT = pathlib.Path(__file__).parents[1]
EPOCHS, SUBSET, BATCH = 4, 256, 64  # 16 steps
RUN = ["train", "--model", "mlp", "--perturb", "device", "--epochs", EPOCHS]
RUN += ["--subset", SUBSET, "--batch-size", BATCH]
# The last digits of a metric are rounded, so two equal to 1e-5 can differ by one there.
DIGIT = 1e-4


def free_port():
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


# Calls in one process, which joins the others once. Before the last the first process keeps a copy
# of the workdir, while the others wait for it.
CALLS = """
import json, shutil, sys
import jax
from tests import cli

*first, last = json.loads(sys.argv[1])
done = []
for words in first:
    done.append(cli.call(*words))
    jax.distributed.initialize = lambda *given: None
if not jax.process_index():
    shutil.copytree(sys.argv[2], sys.argv[2] + "_before")
done.append(cli.call(*last))
print(json.dumps(done))
"""


def two_processes(workdir, *calls):
    """What became of each call in each process; a call is each one's own arguments."""
    address = f"localhost:{free_port()}"
    flags = "--xla_force_host_platform_device_count=4"
    command = [*RUN, "--distributed", "--coordinator", address, "--num-processes", 2]
    started = []
    for number in range(2):
        words = [[*command, "--process-id", number, *own[number]] for own in calls]
        program = [sys.executable, "-c", CALLS, json.dumps(words, default=str), workdir]
        pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        environment = os.environ | dict(XLA_FLAGS=flags, PYTHONPATH=str(ROOT))
        started.append(subprocess.Popen(program, env=environment, **pipes))
    try:
        outputs = [process.communicate(timeout=240) for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.poll() for process in started] == [0, 0], outputs
    last = [out.splitlines()[-1] for out, _ in outputs]  # behind what the processes' library says
    return zip(*([cli.Done(*one) for one in json.loads(line)] for line in last), strict=True)


@pytest.fixture(scope="module")
def calls(tmp_path_factory):
    """Two that one process cannot do, one that one of them stopped, one that goes on."""
    workdir = tmp_path_factory.mktemp("two")
    own, seed, limit = ("--workdir", workdir), ("--seed", 1), ("--time-limit", "0.01")
    differ, unwritable = (own, own + seed), (("--workdir", "/dev/null/runs"), own)
    return workdir, *two_processes(workdir, differ, unwritable, (own, own + limit), (own, own))


@pytest.fixture(scope="module")
def stopped(calls):
    """The workdir with a checkpoint that both wrote."""
    workdir, _, _, (first, second), _ = calls
    assert (first.returncode, second.returncode) == (0, 0), (first, second)
    assert "Stopped by process 1, with a checkpoint" in first.stderr
    assert "Stopped by time limit of 0.01 s, with a checkpoint" in second.stderr
    before = workdir.with_name(f"{workdir.name}_before")
    assert not (before / "results.jsonl").exists()
    return before


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


def test_they_go_on_and_the_first_writes_the_line(calls, stopped, tmp_path):
    workdir, *_, (first, second) = calls
    assert (first.returncode, second.returncode) == (0, 0), (first, second)
    (record,) = lines(workdir)
    assert (record["devices"], record["processes"], record["loop"]) == (8, 2, "host")
    assert "digits mlp asam rho 0.5 seed 0" in first.stdout
    assert "digits" not in second.stdout + second.stderr
    assert not any((workdir / "checkpoints").iterdir())
    ran(*RUN, "--devices", 8, "--workdir", tmp_path)
    (expected,) = lines(tmp_path)
    assert record["run_id"] == expected["run_id"] and expected["processes"] == 1
    for name, values in expected["metrics"].items():
        np.testing.assert_allclose(record["metrics"][name], values, rtol=1e-5, atol=1.5 * DIGIT)


def test_what_one_cannot_do_ends_both(calls):
    _, differ, unwritable, *_ = calls
    for message, done in (
        ("the processes differ in what they run", differ),
        ("workdir '/dev/null/runs' cannot be written", unwritable),
    ):
        for code, _, err in done:
            assert code == 2 and message in err and "Traceback" not in err, err
