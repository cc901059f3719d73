"""The table that opens the report, from lines written down here."""

import pytest

from experiments.reporting import opening, report
from experiments.reporting.opening import Outcome
from experiments.reporting.summaries import Section
from experiments.reporting.tables import Group


def group(*accuracies, fit=100.0, rho=0.5, changed=0.0, epochs=20, subset=2500):
    shared = dict(method="sgd", rho=rho, epochs=epochs, subset=subset, labels_changed=changed)
    metrics = {"train_accuracy": [10.0, fit]}
    return Group(
        tuple(
            shared | dict(test_accuracy_final=a, seed=s, metrics=metrics)
            for s, a in enumerate(accuracies)
        )
    )


def cells(outcome):
    return [cell.strip() for cell in opening.table([outcome]).splitlines()[2].strip("|").split("|")]


def test_the_gain_is_above_the_better_of_the_base_columns():
    cheap = "part16", 1.0625, group(44.0, rho=2.0)
    made = Outcome("it", "us", group(40.0, 42.0), group(43.0), group(44.0), group(45.5), cheap)
    assert cells(made) == [
        "it",
        "yes (100.0%)",
        "41.00 ± 1.41",
        "43.00",
        "44.00 (0.5)",
        "45.50 (0.5)",
        "+2.50",
        "44.00: part16, 1.06 (2)",
        "us",
    ]


def test_what_was_not_run_is_a_dash():
    assert cells(Outcome("it", "us", None, group(43.0)))[2:8] == ["-", "43.00", *"----"]


@pytest.mark.parametrize(
    ("fit", "changed", "word"),
    [
        (99.0, 0.4, "yes (99.0%)"),
        (81.0, 0.4, "in part (81.0%)"),
        (43.0, 0.4, "no (43.0%)"),
        (98.9, 0.0, "no (98.9%)"),
    ],
)
def test_the_regime_is_told_from_the_labels_that_the_base_fits(fit, changed, word):
    assert opening.regime(Outcome("it", "us", group(1.0, fit=fit, changed=changed))) == word


def test_a_run_as_long_as_the_papers_is_its_recipe():
    whole = group(92.0, fit=98.0, epochs=400, subset=None)
    assert opening.regime(Outcome("it", "us", None, whole)) == "the paper's recipe (98.0%)"


def test_the_report_opens_with_it_and_says_a_shared_row_once(tmp_path):
    made = Outcome("it", "us", group(40.0))
    sections = [Section(name, "body", (), (made,)) for name in ("One", "Two")]
    text = report.write(tmp_path, sections, []).read_text()
    assert text.index(f"## {opening.TITLE}") < text.index("## One")
    assert text.count("| it ") == 1
