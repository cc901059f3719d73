"""`benchmark fitted`: what is chosen and trained, and the table, from lines written down here."""

import pytest

from experiments.benchmarks import fitted, fitted_report
from experiments.config.defaults import DEFAULT_RHO
from experiments.config.errors import ConfigError
from experiments.reporting.tables import groups


def line(method, rho, accuracy, *, noise=0.4, seed=0, epochs=20, fit=100.0, **more):
    shared = dict(dataset="cifar10", model="resnet8", label_noise=noise, wall_seconds=1.0)
    metrics = {"train_accuracy": [10.0, fit]}
    of_run = dict(method=method, rho=rho, seed=seed, epochs=epochs, metrics=metrics)
    return shared | of_run | dict(test_accuracy_final=accuracy) | more


TUNING = [
    line("sam", 0.05, 30.0, seed=3, validation=0.5),
    line("sam", 0.2, 34.0, seed=3, validation=0.5),
    line("sam", 0.1, 34.0, seed=3, validation=0.5),
    line("asam", 0.5, 36.0, seed=3, validation=0.5),
    line("asam", 2.0, 20.0, seed=3, validation=0.5),
]

CHOSEN = {("sam", "exact"): 0.1, ("asam", "exact"): 0.5}


def test_the_best_radius_is_chosen_and_of_equals_the_smaller():
    assert fitted.choose(TUNING) == CHOSEN
    found = fitted_report.chosen(groups(TUNING))
    assert found == {(0.4, "sam", "exact"): 0.1, (0.4, "asam", "exact"): 0.5}


def test_the_test_set_judges_no_radius():
    plan = fitted.Plan([0.4], 3)
    tuning = plan.tuning(0.4)
    assert {run.validation for run in tuning} == {0.5}
    assert {run.seed for run in tuning}.isdisjoint(range(plan.seeds))
    # It trains on as many images as the final runs do: on the same ones, and is judged by the next.
    assert {(run.subset or 0) * (1 - run.validation) for run in tuning} == {2500}
    assert {(run.method, run.rho) for run in tuning} == {
        (method, rho) for method, radii in fitted.RADII.items() for rho in radii
    }


def test_forms_choose_from_the_same_radii_and_are_trained_at_their_own():
    plan = fitted.Plan([0.4], 2, 1, ["last", "early4"])
    tuning = [(run.variant, run.rho) for run in plan.tuning(0.4) if run.method == "asam"]
    assert tuning == [(f, r) for f in ("exact", "last", "early4") for r in fitted.RADII["asam"]]
    final = plan.final(0.4, CHOSEN | {("asam", "last"): 2.0})
    assert [(run.rho, run.seed) for run in final if run.variant == "last"] == [(2.0, 0), (2.0, 1)]


@pytest.mark.parametrize("form", ["exact", "look4", "nonsense"])
def test_a_form_that_a_radius_alone_does_not_set_is_refused(form):
    with pytest.raises(ConfigError, match=f"forms: '{form}' is not a form .* those are: every4"):
        fitted.Plan([0.4], 2, 1, [form])


def test_every_method_is_trained_at_both_radii_and_sgd_for_both_lengths():
    final = fitted.Plan([0.4], 2).final(0.4, CHOSEN)
    made = [(run.method, run.rho, run.epochs) for run in final if run.seed == 1]
    assert made == [
        ("sgd", 0.0, 20),
        ("sgd", 0.0, 40),
        ("sam", DEFAULT_RHO["cifar10"]["sam"], 20),
        ("sam", 0.1, 20),
        ("asam", 0.5, 20),  # the paper's is the chosen one
    ]
    assert {run.validation for run in final} == {0.0}
    assert {(run.augment, run.cutout, run.subset) for run in final} == {(False, 0, 2500)}


def test_the_table():
    final = [
        line("sgd", 0.0, 27.0, fit=99.0),
        line("sgd", 0.0, 29.0, seed=1),
        line("sgd", 0.0, 26.0, epochs=40),
        line("sam", 0.05, 30.0),
        line("sam", 0.1, 33.0),
        line("asam", 0.5, 41.0),
    ]
    rows = fitted_report.table(groups(TUNING + final)).splitlines()
    assert len(rows) == 3
    assert [cell.strip() for cell in rows[2].strip("|").split("|")] == [
        "40%",
        "99.50 ± 0.71",
        "28.00 ± 1.41",
        "26.00",
        "30.00",
        "33.00 (0.1)",
        "41.00",
        "41.00 (0.5)",
        "87.68 / 90.62 / 90.89",
    ]


def test_the_table_of_forms_has_each_at_its_own_radius():
    last = dict(variant="last", validation=0.5, seed=3)
    tuning = [*TUNING, line("asam", 1.0, 20.0, **last), line("asam", 2.0, 30.0, **last)]
    final = [
        line("sgd", 0.0, 20.0),
        line("sam", 0.1, 60.0),
        line("asam", 0.5, 40.0),
        line("asam", 1.0, 70.0),  # the paper's, had it been another than the chosen one
        line("asam", 2.0, 35.0, variant="last"),
    ]
    rows = fitted_report.forms(groups(tuning + final), 0.4)
    assert [(g["method"], g["rho"], g.final) for g in rows] == [
        ("sgd", 0.0, [20.0]),
        ("asam", 0.5, [40.0]),
        ("asam", 2.0, [35.0]),
    ]


def test_no_final_runs_no_section():
    assert fitted_report.sections(TUNING) == []
