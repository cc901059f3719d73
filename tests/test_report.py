"""Result lines, kept when broken; and the report: the paper's numbers, what differs."""

import json

import pytest

from experiments.config import paper
from experiments.reporting import report, sections
from experiments.reporting.summaries import Section, arithmetic_of
from experiments.reporting.tables import Group, groups, runs_table
from experiments.training import result_lines
from tests.runs import made
from tests.test_studies import line


def runs(accuracies, fit=100.0, changed=0.0, platform="cpu", **values):
    """A line for each accuracy, seed by seed."""
    device = dict(platform=platform, kind=platform, processors=2)
    more = dict(device=device, labels_changed=changed, train_images=values.get("subset", 50_000))
    made_of = [made(seed=seed, **values) for seed in range(len(accuracies))]
    return [
        line(run, a, fit, run_id=run.run_id(""), **more)
        for run, a in zip(made_of, accuracies, strict=True)
    ]


def test_the_papers_tables_stand_in_order_beside_our_runs(tmp_path):
    lines = [
        *runs([93.0, 94.0], dataset="cifar10", model="resnet20", method="asam"),
        *runs([90.5], dataset="cifar10", model="resnet32", method="sam", label_noise=0.4),
        *runs([70.0], dataset="cifar100", model="resnet20", method="sgd", epochs=10),
    ]
    made_of = sections.sections(lines)
    assert [part.title for part in made_of] == [
        paper.TABLES[name].title for name in ("table1", "table2", "table3")
    ]
    assert "93.50 ± 0.71" in made_of[0].body and "93.82 ± 0.17" in made_of[0].body
    assert "10 (reduced)" in made_of[1].body and "69.76 ± 0.44" in made_of[1].body
    assert "90.62 ± 0.18" in made_of[2].body


@pytest.mark.parametrize(
    "values", [dict(lr=0.2), dict(dtype="bfloat16"), dict(parameterization="layer"), dict(eta=0.0)]
)
def test_what_rows_differ_in_has_a_column(values):
    """So that no two rows look alike, whatever field came last."""
    found = groups([*runs([90.0]), *runs([91.0], **values)])
    header, _, *rows = runs_table(found).splitlines()
    ((name, value),) = values.items()
    assert name.replace("_", " ") in header and len(rows) == 2
    assert any(f" {value} " in row for row in rows)
    assert name.replace("_", " ") not in runs_table(found[:1]).splitlines()[0]


def test_kinds_of_devices_are_never_mixed():
    lines = [*runs([90.0]), *runs([92.0], platform="gpu")]
    first, second = sections.sections(lines)
    assert "90.00" in first.body and "92.00" not in first.body
    assert second.title == f"{first.title}, GPU" and "92.00" in second.body


def test_broken_lines_are_named(tmp_path):
    report.write(tmp_path, [Section("Front", "body")], ["a.jsonl:3: broken"])
    text = (tmp_path / "RESULTS.md").read_text()
    assert "## Front" in text and "a.jsonl:3: broken" in text


def test_the_table_that_opens_the_report():
    base, sam, asam = (
        Group(tuple(runs(values, fit=fit, method=method, label_noise=0.4, changed=0.36)))
        for values, fit, method in (
            ([80.0, 82.0], 99.5, "sgd"),
            ([90.0, 91.0], 70.0, "sam"),
            ([92.0, 92.0], 70.0, "asam"),
        )
    )
    cells = report.opening_row("digits", dict(base=base, sam=sam, asam=asam), "last")
    assert cells[1:4] == ["yes (99.5%)", "81.00 ± 1.41", "-"]
    assert cells[4:6] == ["90.50 ± 0.71 (0.05)", "92.00 ± 0.00 (0.5, authors)"]
    assert cells[6].startswith("+1.50 [") and cells[7] == "last"


@pytest.mark.parametrize(
    ("platform", "values", "words"),
    [
        ("gpu", {}, "float32 (products and convolutions in TF32)"),
        (
            "tpu",
            {"precision": "highest"},
            "float32 (products and convolutions in six passes of bfloat16)",
        ),
        ("gpu", {"dtype": "bfloat16"}, "bfloat16"),
    ],
)
def test_the_arithmetic_is_said_as_the_device_has_it(platform, values, words):
    record = {"dtype": "float32", "device": {"platform": platform}} | values
    assert arithmetic_of(record).startswith(words)


def test_an_empty_folder_says_so(tmp_path):
    path = report.write(tmp_path, [], [])
    assert "Nothing yet" in path.read_text() and result_lines.read(tmp_path) == ([], [])


def result(run_id, **values):
    return line(made(method="sgd"), 90.0) | dict(run_id=run_id) | values


def test_a_broken_last_line_is_kept_reported_and_not_glued_to_the_next(tmp_path):
    result_lines.append(tmp_path, result("a"))
    assert result_lines.read(tmp_path) == ([result("a")], [])
    path = tmp_path / result_lines.RESULTS_NAME
    broken = json.dumps(result("b"))[:37]
    with path.open("a") as file:
        file.write(broken)
    result_lines.append(tmp_path, result("c"))
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
        result_lines.append(tmp_path / folder, result("a"))
    assert len(result_lines.read(tmp_path)[0]) == 1


def test_other_kinds_are_not_runs_nor_problems(tmp_path):
    for values in ([1, 2], [3]):
        records = [{"kind": "figure1", "x": x} for x in values]
        result_lines.replace(tmp_path, records, "f.jsonl")
        assert result_lines.read(tmp_path) == ([], [])
        assert result_lines.read_kind(tmp_path, "figure1") == records


def test_what_is_not_finite_becomes_null(tmp_path):
    result_lines.append(tmp_path, result("a", metrics={"loss": [1.0, float("nan"), float("inf")]}))
    text = (tmp_path / "results.jsonl").read_text()
    assert json.loads(text, parse_constant=pytest.fail)["metrics"]["loss"] == [1.0, None, None]
