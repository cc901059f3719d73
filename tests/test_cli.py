"""The command line as a user calls it: what it prints, writes and refuses."""

import fcntl
import os

import pytest

from tests.cli import call, call_process, lines

SMALL = ["train", "--model", "mlp", "--subset", "256", "--epochs", "2"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Three methods in one workdir."""
    workdir = tmp_path_factory.mktemp("trained")
    for method, how in (("sgd", call_process), ("sam", call), ("asam", call)):
        done = how(*SMALL, "--method", method, "--label-noise", "0.4", "--workdir", workdir)
        assert done.returncode == 0, done.stderr
    return workdir


def test_a_line_for_each_run_says_how_it_came_about(trained):
    records = lines(trained)
    assert [r["method"] for r in records] == ["sgd", "sam", "asam"]
    assert [r["rho"] for r in records] == [0.0, 0.05, 0.5]
    for record in records:
        assert (record["dataset"], record["model"], record["epochs"]) == ("digits", "mlp", 2)
        assert (record["eta"], record["p"], record["seed"]) == (
            0.01 if record["method"] == "asam" else 0.0,
            2.0,
            0,
        )
        assert record["normalization"] in ("none", "identity", "elementwise")
        assert record["label_noise"] == 0.4
        assert 0 <= record["test_accuracy_final"] <= record["test_accuracy_max"] <= 100
        assert len(record["params_sha256"]) == 64
        assert record["command"].startswith("python -m experiments train")
        assert record["versions"]["jax"] and record["device"]["platform"] == "cpu"
        assert len(record["dataset_fingerprint"]) == 16
        assert {len(values) for values in record["metrics"].values()} == {2}
        assert record["test_accuracy_max"] == max(record["metrics"]["test_accuracy"])
    assert len({r["params_sha256"] for r in records}) == 3
    assert not (trained / "checkpoints").exists() or not any((trained / "checkpoints").iterdir())


def test_a_finished_run_is_not_run_again(trained):
    before = (trained / "results.jsonl").read_bytes()
    again = call(*SMALL, "--method", "asam", "--label-noise", "0.4", "--workdir", trained)
    assert again.returncode == 0
    assert "1 of 1 runs are finished already" in again.stdout
    assert (trained / "results.jsonl").read_bytes() == before


def test_report_is_made_from_the_lines_alone(trained):
    done = call("report", "--workdir", trained)
    assert done.returncode == 0, done.stderr
    text = (trained / "RESULTS.md").read_text()
    for record in lines(trained):
        assert f"{record['test_accuracy_final']:.2f}" in text
    assert (trained / "digits_mlp_noise40.png").stat().st_size > 10_000


def test_help_of_every_command():
    listed = call("--help").stdout
    for name in ("models", "train", "table1", "table2", "table3", "report", "benchmark"):
        assert name in listed
        usage = call(name, "--help")
        assert usage.returncode == 0
        if name != "benchmark":
            assert "--workdir" in usage.stdout
    assert "--workdir" in listed and "--workdir" in call("benchmark", "step", "--help").stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--method", "adam"], "unknown method 'adam'; the known ones are: sgd, sam, asam"),
        (["--dataset", "mnist"], "unknown dataset 'mnist'; the known ones are: digits, cifar10"),
        (["--model", "lenet"], "unknown model 'lenet'; the known ones are: mlp, cnn"),
        (["--loop", "fast"], "unknown loop 'fast'; the known ones are: auto, host, scan"),
        (["--rho", "-1"], "rho=-1.0: the radius of the perturbation must be at least 0"),
        (["--p", "0.5"], "p=0.5: the order of the norm must be at least 1"),
        (["--label-noise", "1.5"], "label_noise=1.5"),
        (["--method", "sgd", "--rho", "0.5"], "rho=0.5 means nothing to method 'sgd'"),
        (["--batch-size", "5000"], "batch_size=5000 is larger than the 1297 training images"),
        (["--subset", "5000"], "subset=5000 is more than the 1297 training images"),
        (["--epochs", "0"], "epochs=0"),
    ],
)
def test_bad_values_are_one_line_and_exit_code_two(tmp_path, arguments, message):
    done = call("train", "--workdir", tmp_path / "runs", *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and message in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unknown_command_and_a_missing_workdir(tmp_path):
    assert call("tabel1").returncode == 2
    done = call("report", "--workdir", tmp_path / "none")
    assert done.returncode == 2 and "does not exist" in done.stderr


def test_a_workdir_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    done = call(*SMALL, "--workdir", tmp_path / "file" / "runs")
    assert done.returncode == 2 and "cannot be written" in done.stderr


def test_a_second_process_in_the_workdir_is_refused(tmp_path):
    with (tmp_path / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(str(os.getpid()))
        file.flush()
        done = call(*SMALL, "--workdir", tmp_path)
    assert done.returncode == 2
    assert f"in use by another process (pid {os.getpid()})" in done.stderr
