"""The command line as a user calls it: what it prints, writes and refuses."""

import fcntl

import pytest

from tests.cli import lines, needs_cifar10, ran, refused, start

SMALL = ["train", "--model", "mlp", "--subset", "256", "--epochs", "2", "--batch-size", "64"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Three methods in one workdir, the first in a process of its own."""
    workdir = tmp_path_factory.mktemp("trained")
    words = [*SMALL, "--label-noise", "0.4", "--workdir", workdir, "--method"]
    process = start(*words, "sgd")
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    for method in ("sam", "asam"):
        ran(*words, method)
    return workdir


def test_a_line_for_each_run_says_how_it_came_about(trained):
    records = lines(trained)
    found = [(r["method"], r["rho"], r["eta"], r["normalization"]) for r in records]
    assert found == [
        ("sgd", 0.0, 0.0, "none"),
        ("sam", 0.05, 0.0, "identity"),
        ("asam", 0.5, 0.01, "elementwise"),
    ]
    for record in records:
        assert (record["dataset"], record["model"], record["epochs"]) == ("digits", "mlp", 2)
        assert (record["p"], record["seed"], record["parameterization"]) == (2.0, 0, "as is")
        assert record["label_noise"] == 0.4
        assert 0 <= record["test_accuracy_final"] <= record["test_accuracy_max"] <= 100
        assert len(record["params_sha256"]) == 64 and len(record["dataset_fingerprint"]) == 16
        assert record["command"].startswith("python -m experiments train")
        assert record["versions"]["jax"] and record["device"]["platform"] == "cpu"
        assert {len(values) for values in record["metrics"].values()} == {2}
        assert record["test_accuracy_max"] == max(record["metrics"]["test_accuracy"])
    assert len({r["params_sha256"] for r in records}) == 3
    assert not any((trained / "checkpoints").glob("*"))


def test_a_finished_run_is_not_run_again_and_the_report_is_of_lines_alone(trained):
    before = (trained / "results.jsonl").read_bytes()
    again = ran(*SMALL, "--method", "asam", "--label-noise", "0.4", "--workdir", trained)
    assert "1 of 1 runs are finished already" in again.stdout
    assert (trained / "results.jsonl").read_bytes() == before
    ran("report", "--workdir", trained)
    text = (trained / "RESULTS.md").read_text()
    for record in lines(trained):
        assert f"{record['test_accuracy_final']:.2f}" in text


def test_help_of_every_command():
    listed = ran("--help").stdout
    names = "models train table1 table2 table3 report figure1 figure2 figure3 figure4"
    for name in [*names.split(), "study", "benchmark step"]:
        assert name in listed and "--workdir" in ran(*name.split(), "--help").stdout
    assert "--workdir" in listed


@needs_cifar10
def test_a_tables_rows_are_options(tmp_path):
    words = ["--models", "mlp", "--noise", "0", "0.4", "--methods", "sgd", "asam", "--epochs", "1"]
    done = ran("table3", *words, "--seeds", "1", "--subset", "128", "--workdir", tmp_path)
    found = [(line["label_noise"], line["method"]) for line in lines(tmp_path)]
    assert found == [(0.0, "sgd"), (0.0, "asam"), (0.4, "sgd"), (0.4, "asam")]
    assert [line["epochs"] for line in lines(tmp_path)] == [2, 1, 2, 1]  # equal gradients
    assert "All 4 runs are finished" in done.stdout
    refused("rho is each row's own", "table3", "--rho", "0.5", "--workdir", tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--method", "adam"], "--method"),
        (["--loop", "fast"], "--loop"),
        (["--rho", "-1"], "error: rho=-1.0 must be at least 0"),
        (["--subset", "32"], "batch_size=64 is larger than the 32 training images"),
        (["--subset", "5000"], "subset=5000 is more than the 1297 training images of digits"),
        (["--devices", 64], "devices=64 is more than the 8 that JAX sees"),
        (["--devices", 2, "--loop", "scan"], "loop='scan' runs on one device, not on 2"),
        (["--process-id", 0], "process_id mean nothing to a process that is alone"),
    ],
)
def test_bad_values_say_what_and_exit_with_two(tmp_path, arguments, message):
    refused(message, *SMALL, "--workdir", tmp_path, *arguments)


def test_a_command_and_workdirs_that_cannot_be_used(tmp_path):
    refused("unknown command 'tabel1'", "tabel1")
    refused("unknown command 'benchmark'; the known ones are: models, train", "benchmark")
    refused("does not exist", "report", "--workdir", tmp_path / "none")
    (tmp_path / "file").write_text("")
    refused("cannot be written", *SMALL, "--workdir", tmp_path / "file" / "runs")
    with (tmp_path / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        refused("is in use by another process", *SMALL, "--workdir", tmp_path)
