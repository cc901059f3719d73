"""Studies: what they run, what they choose and by what, and the tables of their lines."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from experiments.config.errors import ConfigError
from experiments.config.registry import collect
from experiments.reporting.tables import Group, paired
from experiments.studies import default, engine, report
from experiments.studies.study import Arm, Problem, Study
from experiments.training import result_lines
from tests.runs import EVIDENCE, made

STUDIES = collect("experiments.studies", "STUDIES")
SMALL = dict(dataset="digits", model="mlp", epochs=2, batch_size=32)
TUNING = dict(subset=64, validation=0.5)
ASKED = Study(
    name="asked",
    title="What was asked",
    question="A question.",
    problems=(
        Problem("one", SMALL | dict(subset=32), TUNING),
        Problem("two", SMALL | dict(subset=32, label_noise=0.4), TUNING, origin="one"),
    ),
    arms=(
        Arm("SGD", dict(method="sgd"), role="base"),
        Arm("SAM", dict(method="sam"), dict(rho=(0.1, 0.2, 0.4)), role="sam"),
        Arm("ASAM, carried", dict(method="asam"), dict(rho=(0.5, 1.0)), origin=True),
        Arm("ASAM", dict(method="asam"), dict(rho=(0.5, 1.0)), role="asam"),
    ),
    references=("SGD", "SAM"),
    seeds=3,
)


def line(run, accuracy, fit=90.0, **more):
    """A result line of a run with this accuracy."""
    record = run.as_json() | dict(test_accuracy_final=accuracy, test_accuracy_max=accuracy)
    record |= dict(metrics={"train_accuracy": [fit]}, dataset_fingerprint="d", train_images=32)
    record |= dict(wall_seconds=1.0, command="python -m experiments study asked")
    device = dict(platform="cpu", kind="cpu", processors=2)
    return record | dict(device=device, versions=dict(jax="1", flax="1")) | more


def lines_of(runs, accuracy):
    return [line(run, accuracy(run)) for run in runs]


def tuned(run):
    """0.2 is SAM's best radius, 0.5 and 1 ASAM's on clean and on noisy labels."""
    if run.method == "sam":
        return 80.0 - 100 * abs(run.rho - 0.2)
    return 90.0 - abs(run.rho - (1.0 if run.label_noise else 0.5))


def test_settings_are_chosen_on_held_out_images_by_other_seeds():
    runs = engine.tuning(ASKED, {})
    assert {run.validation for run in runs} == {0.5} and {run.seed for run in runs} == {3, 4}
    assert all(run.data_seed == run.seed for run in runs)
    # SAM's three and ASAM's two radii on each problem; what is carried over is judged once.
    assert len(runs) == 2 * (2 * (3 + 2) + 2)
    choices = engine.choose(ASKED, lines_of(runs, tuned))
    assert choices["one", "SAM"] == choices["two", "SAM"] == {"rho": 0.2}
    assert choices["two", "ASAM"] == {"rho": 1.0}
    assert choices["two", "ASAM, carried"] == choices["one", "ASAM"] == {"rho": 0.5}
    final = engine.finals(ASKED, choices)
    assert {run.validation for run in final} == {0.0} and {run.seed for run in final} == {0, 1, 2}
    assert all(run.data_seed == run.seed for run in final)  # subset and noise of its own
    assert {run.rho for run in final if run.method == "sam"} == {0.2}
    with pytest.raises(ConfigError, match="no runs have judged 'SAM' on 'one' yet"):
        engine.finals(ASKED, {})


def test_ties_go_to_the_first_and_fitting_comes_first():
    arms = (Arm("SGD", dict(method="sgd"), dict(lr=(0.1, 0.2, 0.4)), fits=True),)
    one = dataclasses.replace(ASKED, problems=ASKED.problems[:1], arms=arms)
    runs = engine.tuning(one, {})
    equal = [line(run, 80.0, fit=100.0) for run in runs]
    assert engine.choose(one, equal)["one", "SGD"] == {"lr": 0.1}
    better = [line(r, 80 + 10 * r.lr, fit=100.0 if r.lr < 0.3 else 50.0) for r in runs]
    assert engine.choose(one, better)["one", "SGD"] == {"lr": 0.2}


def test_an_arm_takes_over_the_choice_of_another():
    arms = (
        Arm("SGD", dict(method="sgd"), dict(lr=(0.1, 0.2)), origin=True),
        Arm("SGD, twice", dict(method="sgd"), base="SGD", epochs=2),
        Arm("SAM", dict(method="sam"), dict(rho=(0.1, 0.2)), base="SGD"),
    )
    what = dataclasses.replace(ASKED, arms=arms)
    choices = {("one", "SGD"): {"lr": 0.2}, ("two", "SGD"): {"lr": 0.2}}
    runs = [run for run in engine.tuning(what, choices) if run.method == "sam"]
    assert {run.lr for run in runs} == {0.2}
    final = engine.finals(what, choices | {(p, "SAM"): {"rho": 0.1} for p in ("one", "two")})
    assert {run.lr for run in final} == {0.2} and {run.epochs for run in final} == {2, 4}


def test_a_joint_choice_keeps_most_where_it_keeps_least():
    ruled = dict(method="asam", variant="le-sam", rho=1.0)
    arms = (
        Arm("SGD", dict(method="sgd")),
        Arm("constant", dict(method="asam"), dict(rho=(0.5, 1.0))),
        Arm("rule", ruled, dict(weight=(0.2, 0.3)), joint=True),
    )
    problems = [dataclasses.replace(p, origin=None, judges=True) for p in ASKED.problems]
    other = dataclasses.replace(problems[1], name="three", judges=False)
    problems = (*problems, dataclasses.replace(other, settings=SMALL | dict(label_noise=0.6)))
    what = dataclasses.replace(ASKED, arms=arms, problems=problems)
    clean = {"sgd": 80.0, "fixed": 90.0, 0.2: 89.0, 0.3: 91.0}
    noisy = {"sgd": 60.0, "fixed": 80.0, 0.2: 80.0, 0.3: 76.0}

    def accuracy(run):
        rule = run.weight if run.variant == "le-sam" else "fixed"
        return (noisy if run.label_noise else clean)["sgd" if run.method == "sgd" else rule]

    choices = engine.choose(what, lines_of(engine.tuning(what, {}), accuracy))
    assert choices["one", "rule"] == choices["two", "rule"] == {"weight": 0.2}  # 0.9 and 1
    assert choices["three", "rule"] == {"weight": 0.2}
    assert not [run for run in engine.tuning(what, {}) if run.weight and run.label_noise == 0.6]


def all_lines(edge=False):
    judged = lines_of(engine.tuning(ASKED, {}), (lambda r: 70.0 + 10 * r.rho) if edge else tuned)
    choices = engine.choose(ASKED, judged)
    return judged + lines_of(engine.finals(ASKED, choices), lambda r: 70.0 + 10 * r.rho + r.seed)


def test_the_tables_mark_edges_and_pair_seeds(tmp_path):
    first, second = report.of_study(Path("runs"), ASKED, all_lines())
    assert first.title == "What was asked: one" and "A question." in first.body
    row = next(text for text in first.body.splitlines() if text.startswith("| SAM"))
    assert "rho 0.2 " in row and "73.00 ± 1.00" in row and "+2.00 [2.00, 2.00]" in row
    assert "(*)" in first.body and "rho 0.2 (*)" not in first.body  # ASAM has an edge, SAM none
    name, draw = second.pictures[0]
    draw(tmp_path / name)
    assert (tmp_path / name).stat().st_size > 5_000 and name == "asked_two.png"
    assert "rho 0.4 (*)" in report.of_study(Path("runs"), ASKED, all_lines(edge=True))[0].body
    ((problem, _, base, twice, sam, asam, _, cheap),) = first.gained
    assert (problem, base, twice, cheap) == ("one, CPU", "71.00 ± 1.00", "-", "-")
    assert sam == "73.00 ± 1.00 (0.2)" and asam.endswith(" (0.5, authors)")


def test_the_wide_table_has_a_row_a_problem():
    wide = dataclasses.replace(ASKED, wide=True, share=("SGD", "ASAM"))
    (section,) = report.of_study(Path("runs"), wide, all_lines())
    rows = [text for text in section.body.splitlines() if text.startswith("| ")]
    assert [row.split("|")[1].strip() for row in rows[2:4]] == ["one", "two"]
    assert "keeps 0.40" in rows[2] and "| mean share " in section.body
    first = dataclasses.replace(wide.problems[0], judges=True)
    judged = dataclasses.replace(wide, problems=(first, wide.problems[1]))
    (section,) = report.of_study(Path("runs"), judged, all_lines())
    assert "| one (chosen here) " in section.body and "| mean share elsewhere " in section.body


def test_lines_with_a_draw_of_their_own_come_before_older_ones():
    runs = engine.tuning(ASKED, {})
    final = engine.finals(ASKED, engine.choose(ASKED, lines_of(runs, tuned)))
    shared = [dataclasses.replace(run, data_seed=None) for run in (*runs, *final)]
    older = lines_of(shared, lambda run: tuned(run) if run.validation else 10.0)
    (section, _) = report.of_study(Path("runs"), ASKED, older)
    assert "All seeds share one subset" in section.body and "10.00 ± 0.00" in section.body
    newer = report.of_study(Path("runs"), ASKED, [*older, *all_lines()])[0]
    assert "All seeds share" not in newer.body and "10.00" not in newer.body


def test_paired_intervals_are_student_s():
    groups = [
        Group(tuple(line(made(seed=s), a) for s, a in enumerate(values)))
        for values in ([91.0, 92.0, 95.0], [90.0, 90.0, 92.0])
    ]
    half = 4.302653 * np.std([1, 2, 3], ddof=1) / 3**0.5
    assert paired(*groups) == f"+2.00 [{2 - half:.2f}, {2 + half:.2f}]"
    alone = Group(groups[1].runs[:1])
    assert paired(groups[0], alone) == "+1.00"


def test_a_part_of_a_study_brings_what_it_rests_on():
    part = ASKED.only(["two"], ["ASAM"])
    assert [one.name for one in part.problems] == ["one", "two"]
    assert [one.name for one in part.arms] == ["SGD", "SAM", "ASAM"]
    with pytest.raises(ConfigError, match="unknown problem 'three'; the known ones are: one, two"):
        ASKED.only(["three"], [])


@pytest.mark.parametrize("name", STUDIES)
def test_every_study_can_be_planned(name):
    what = STUDIES[name]
    first = {arm.name: {key: values[0] for key, values in arm.grid.items()} for arm in what.arms}
    choices = {(p.name, arm.name): first[arm.name] for p in what.problems for arm in what.arms}
    runs = engine.tuning(what, choices)
    assert runs and all(run.validation for run in runs)
    final = engine.finals(what, choices)
    assert len({run.run_id("") for run in final}) > what.seeds * len(what.problems)
    assert {run.seed for run in final}.isdisjoint(run.seed for run in runs)


def test_the_default_jobs_radii_are_those_that_its_study_chose():
    what = STUDIES["parameterization"]
    choices = engine.choose(what, result_lines.read(EVIDENCE, what.kind)[0])
    for name, rho in default.CHOSEN.items():
        assert choices[default.AS_IS, f"{name}, rho carried over"] == {"rho": rho}


def test_the_default_job_trains_each_method_on_both_networks_and_fills_a_readme(tmp_path):
    runs = engine.finals(default.STUDY, {})
    assert len(runs) == 2 * 4 * 5
    assert {run.parameterization for run in runs} == {"as is", "layer"}
    rows = report.analyse(default.STUDY, lines_of(runs, lambda run: 80.0 + run.seed))
    assert default.table(rows).count("82.00 ± 1.58") == 8
    records = lines_of(runs, lambda run: 80.0 + run.seed)
    records = [record | dict(run_id=str(n)) for n, record in enumerate(records)]
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{default.BEGIN}\nold\n{default.END}\nafter\n")
    result_lines.replace(tmp_path, records[:-1], "results.jsonl")
    with pytest.raises(ConfigError, match="holds 39 of the default job's 40 runs"):
        default.write_readme(tmp_path, readme)
    result_lines.replace(tmp_path, records, "results.jsonl")
    default.write_readme(tmp_path, readme)
    text = readme.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text
    assert "| ASAM, authors' rule |" in text and "40 runs" in text
