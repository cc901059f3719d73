"""Result lines: whole or not at all, kept when broken, strict JSON."""

import json

import pytest

from experiments.training import result_lines


def line(run_id, **values):
    record = dict(
        run_id=run_id,
        dataset="digits",
        model="mlp",
        method="sgd",
        test_accuracy_final=90.0,
        test_accuracy_max=91.0,
    )
    return record | values


def test_lines_come_back_in_order(tmp_path):
    for name in "abc":
        result_lines.append(tmp_path, line(name))
    assert result_lines.read(tmp_path) == ([line("a"), line("b"), line("c")], [])


def test_a_broken_last_line_is_kept_reported_and_not_glued_to_the_next(tmp_path):
    result_lines.append(tmp_path, line("a"))
    path = tmp_path / result_lines.RESULTS_NAME
    broken = json.dumps(line("b"))[:37]
    with path.open("a") as file:
        file.write(broken)
    result_lines.append(tmp_path, line("c"))
    assert path.read_text().splitlines()[1] == broken
    runs, problems = result_lines.read(tmp_path)
    assert [run["run_id"] for run in runs] == ["a", "c"]
    assert problems == [f"{path}:2: not a whole result line; kept, but not counted."]


@pytest.mark.parametrize("text", ["[1, 2]", "3", '{"run_id": "x"}', "\x00\x00"])
def test_lines_that_are_no_results_are_reported(tmp_path, text):
    (tmp_path / "results.jsonl").write_text(text + "\n")
    runs, problems = result_lines.read(tmp_path)
    assert runs == [] and len(problems) == 1


def test_a_run_counts_once_over_all_folders(tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        result_lines.append(tmp_path / folder, line("a"))
    assert len(result_lines.read(tmp_path)[0]) == 1


def test_other_kinds_are_not_runs_nor_problems(tmp_path):
    result_lines.replace(
        tmp_path, [{"kind": "figure1", "x": 1}, {"kind": "figure1", "x": 2}], "f.jsonl"
    )
    assert result_lines.read(tmp_path) == ([], [])
    assert [r["x"] for r in result_lines.read_kind(tmp_path, "figure1")] == [1, 2]
    result_lines.replace(tmp_path, [{"kind": "figure1", "x": 3}], "f.jsonl")
    assert [r["x"] for r in result_lines.read_kind(tmp_path, "figure1")] == [3]


def test_what_is_not_finite_becomes_null(tmp_path):
    result_lines.append(tmp_path, line("a", metrics={"loss": [1.0, float("nan"), float("inf")]}))
    text = (tmp_path / "results.jsonl").read_text()
    assert json.loads(text, parse_constant=pytest.fail)["metrics"]["loss"] == [1.0, None, None]
