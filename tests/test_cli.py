"""The command line as a user calls it: what it prints, writes and refuses."""

import fcntl

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
        assert record["eta"] == (0.01 if record["method"] == "asam" else 0.0)
        assert (record["p"], record["seed"], record["parameterization"]) == (2.0, 0, "as is")
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
    assert not any((trained / "checkpoints").glob("*"))


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


def test_help_of_every_command():
    listed = call("--help").stdout
    for name in ("models", "train", "table1", "table2", "table3", "report", "figure1", "figure2"):
        assert name in listed
        usage = call(name, "--help")
        assert usage.returncode == 0 and "--workdir" in usage.stdout
    for name in ("figure3", "figure4", "curvature", "study", "benchmark"):
        assert name in listed and "--workdir" in call(name, "--help").stdout
    assert "--workdir" in listed


def test_a_tables_rows_are_options(tmp_path):
    words = ["--models", "mlp", "--noise", "0", "0.4", "--methods", "sgd", "asam", "--epochs", "1"]
    done = call("digits", *words, "--seeds", "1", "--subset", "128", "--workdir", tmp_path)
    assert done.returncode == 0, done.stderr
    found = [(line["label_noise"], line["method"]) for line in lines(tmp_path)]
    assert found == [(0.0, "sgd"), (0.0, "asam"), (0.4, "sgd"), (0.4, "asam")]
    assert "All 4 runs are finished" in done.stdout
    refused = call("digits", "--rho", "0.5", "--workdir", tmp_path)
    assert refused.returncode == 2 and "rho is each row's own" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--method", "adam"], "--method"),
        (["--dataset", "mnist"], "unknown dataset 'mnist'; the known ones are: cifar10"),
        (["--model", "lenet"], "unknown model 'lenet'; the known ones are: densenet121"),
        (["--loop", "fast"], "unknown loop 'fast'; the known ones are: auto, host, scan"),
        (["--rho", "-1"], "rho=-1.0 must be at least 0"),
        (["--label-noise", "1.5"], "label_noise=1.5"),
        (["--method", "sgd", "--rho", "0.5"], "rho=0.5 means nothing to method 'sgd'"),
        (["--batch-size", "5000"], "batch_size=5000 is larger than the 1297 training images"),
        (["--subset", "5000"], "subset=5000 is more than the 1297 training images"),
    ],
)
def test_bad_values_say_what_and_exit_with_two(tmp_path, arguments, message):
    done = call("train", "--workdir", tmp_path / "runs", *arguments)
    assert done.returncode == 2
    assert message in done.stderr + done.stdout
    assert "Traceback" not in done.stderr


def test_an_unknown_command_and_a_missing_workdir(tmp_path):
    done = call("tabel1")
    assert done.returncode == 2 and "unknown command 'tabel1'" in done.stderr
    done = call("report", "--workdir", tmp_path / "none")
    assert done.returncode == 2 and "does not exist" in done.stderr


def test_a_workdir_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    done = call(*SMALL, "--workdir", tmp_path / "file" / "runs")
    assert done.returncode == 2 and "cannot be written" in done.stderr


def test_a_second_process_in_the_workdir_is_refused(tmp_path):
    with (tmp_path / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        done = call(*SMALL, "--workdir", tmp_path)
    assert done.returncode == 2 and "is in use by another process" in done.stderr
