"""A run killed at any moment ends with the same bits as one never stopped, and one result line."""

import random
import signal
import time

import pytest

from experiments.training.stop import StopRequest
from tests import cli

KILLS = 3
# Long enough that kills land in start-up, in training and between checkpoints.
RUN = ["train", "--model", "mlp", "--epochs", "40", "--method", "asam", "--seed", "3"]


def start(workdir):
    return cli.start(*RUN, "--workdir", workdir, "--checkpoint-seconds", "0.05")


def finish(workdir, *arguments):
    return cli.call(*RUN, "--workdir", workdir, *arguments)


def ends_as(whole, workdir):
    """The same command goes on to the bits of the run that was never stopped, and one line."""
    done = finish(workdir)
    assert done.returncode == 0, done.stderr
    (record,) = cli.lines(workdir)
    for name in ("params_sha256", "metrics"):
        assert record[name] == whole[name]
    assert not checkpoint_steps(workdir)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The run that was never stopped."""
    workdir = tmp_path_factory.mktemp("whole")
    done = finish(workdir)
    assert done.returncode == 0, done.stderr
    (line,) = cli.lines(workdir)
    return line


def checkpoint_steps(workdir):
    return sorted(int(p.name) for p in workdir.glob("checkpoints/*/*") if p.name.isdigit())


def wait_for(process, condition):
    """Until the condition holds or the process has ended."""
    deadline = time.monotonic() + 120
    while not condition() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)


def test_killed_at_three_moments(whole, tmp_path):
    """One in start-up, the others after a checkpoint beyond the last: no clock decides which."""
    moments, resumed = random.Random(0), 0
    for number in range(KILLS):
        before = checkpoint_steps(tmp_path)
        process = start(tmp_path)
        if number:
            wait_for(process, lambda last=before: checkpoint_steps(tmp_path)[-1:] > last[-1:])
            time.sleep(moments.uniform(0, 0.15))
        else:
            time.sleep(moments.uniform(0, 3))
        process.kill()
        process.communicate()
        resumed += bool(checkpoint_steps(tmp_path))
        if (tmp_path / "results.jsonl").exists():
            break
    assert resumed >= KILLS // 2
    ends_as(whole, tmp_path)


def test_a_signal_stops_with_a_checkpoint(whole, tmp_path):
    process = start(tmp_path)
    wait_for(process, lambda: checkpoint_steps(tmp_path))
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.poll() == 128 + signal.SIGTERM
    assert "with a checkpoint; the same command goes on" in err
    assert checkpoint_steps(tmp_path)
    ends_as(whole, tmp_path)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_is_a_request_and_the_second_acts_as_usual(how):
    usual, stop, seen = signal.getsignal(how), StopRequest(), []
    signal.signal(how, lambda *_: seen.append(how))
    try:
        with stop.catching_signals():
            assert stop.pending is None
            signal.raise_signal(how)
            assert (stop.pending.reason, stop.pending.exit_code) == (how.name, 128 + how)
            assert seen == []
            signal.raise_signal(how)
            assert seen == [how]
        signal.raise_signal(how)
        assert seen == [how, how]
    finally:
        signal.signal(how, usual)
