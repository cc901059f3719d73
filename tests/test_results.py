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
