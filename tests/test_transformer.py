"""`benchmark transformer`: what is chosen and trained, and the table, from lines written here."""

import pytest
from cli import call

from experiments.benchmarks import transformer, transformer_report
from experiments.config.errors import ConfigError
from experiments.datasets import arrays
from experiments.reporting.tables import groups
from experiments.training.spec import hyper_of, spec_of

pytestmark = pytest.mark.usefixtures("flax_promotes")
LR = {"adamw": 1e-3, "muon": 2e-3}
RHO = {("adamw", "sam"): 0.1, ("adamw", "asam"): 1.0, ("muon", "asam"): 0.5}


def line(optimizer, method, accuracy, *, rho=0.0, lr=1e-3, seed=0, epochs=40, fit=100.0, **more):
    shared = dict(dataset="digits", model="vit", label_noise=0.4, wall_seconds=1.0)
    metrics = {"train_accuracy": [10.0, fit]}
    of_run = dict(optimizer=optimizer, method=method, rho=rho, lr=lr, seed=seed, epochs=epochs)
    return shared | of_run | dict(metrics=metrics, test_accuracy_final=accuracy) | more


def test_the_best_rate_that_fits_is_chosen_and_the_best_of_all_where_none_does():
    rates = [
        line("adamw", "sgd", 90.0, lr=5e-4, fit=98.9),
        line("adamw", "sgd", 85.0, lr=2e-3, fit=99.2),
        line("adamw", "sgd", 85.0, lr=1e-3, fit=99.1),
        line("adamw", "sgd", 80.0, lr=4e-3),
        line("muon", "sgd", 70.0, lr=1e-3, fit=50.0),
        line("muon", "sgd", 71.0, lr=2e-3, fit=40.0),
    ]
    assert transformer.chosen_rates(rates) == {"adamw": 1e-3, "muon": 2e-3}


def test_the_best_radius_of_each_is_chosen_and_of_equals_the_smaller():
    radii = [
        line("adamw", "sam", 80.0, rho=0.2),
        line("adamw", "sam", 80.0, rho=0.1),
        line("adamw", "asam", 81.0, rho=1.0),
        line("muon", "asam", 82.0, rho=2.0),
        line("muon", "asam", 83.0, rho=0.5),
    ]
    assert transformer.chosen_radii(radii) == RHO


@pytest.mark.parametrize("dataset", list(transformer.PROBLEMS))
def test_the_test_set_judges_no_choice(dataset):
    plan = transformer.Plan([dataset], [0.4], 3)
    tuning = [*plan.rates(dataset), *plan.radii(dataset, 0.4, LR)]
    final = plan.final(dataset, 0.4, LR, RHO)
    assert all(run.validation for run in tuning) and not any(run.validation for run in final)
    assert {run.seed for run in tuning}.isdisjoint(run.seed for run in final)
    assert {run.label_noise for run in plan.rates(dataset)} == {0.0}
    # The optimizers alone choose the rate, and the methods have the rate of theirs.
    assert {run.method for run in plan.rates(dataset)} == {"sgd"}
    later = [*plan.radii(dataset, 0.4, LR), *final]
    assert all(run.lr == LR[run.optimizer] for run in later)


def test_alone_for_both_lengths_and_the_others_at_their_radii():
    final = transformer.Plan(["cifar10"], [0.4], 2).final("cifar10", 0.4, LR, RHO)
    made = [(r.optimizer, r.method, r.rho, r.epochs) for r in final if r.seed == 1]
    assert made == [
        ("adamw", "sgd", 0.0, 40),
        ("adamw", "sgd", 0.0, 80),
        ("adamw", "sam", 0.1, 40),
        ("adamw", "asam", 1.0, 40),
        ("muon", "sgd", 0.0, 40),
        ("muon", "sgd", 0.0, 80),
        ("muon", "asam", 0.5, 40),
    ]
    assert {(r.model, r.warmup, r.augment) for r in final} == {("vit", 0.1, False)}
    assert all(r.test_every == r.epochs for r in final)


def test_radii_rates_seeds_and_noise_share_five_programs_on_as_many_images():
    digits = arrays.load("digits")
    plan = transformer.Plan(["digits"], [0.0, 0.4], 2)
    runs = plan.rates("digits")
    for noise in plan.noise:
        runs += [*plan.radii("digits", noise, LR), *plan.final("digits", noise, LR, RHO)]
    programs = {
        (
            spec_of(run, digits),
            len(arrays.prepare(digits, run).train_labels),
            hyper_of(run, 1).warmup is None,
        )
        for run in runs
    }
    assert len(programs) == 5
    images = {len(arrays.prepare(digits, run).train_labels) for run in runs}
    assert images == {973}


def test_the_table():
    held = dict(seed=2, validation=0.25)
    tuning = [
        *[line("adamw", "sgd", 80.0, lr=lr, label_noise=0.0, **held) for lr in (1e-3, 2e-3, 4e-3)],
        *[line("adamw", "asam", 80.0, rho=rho, lr=2e-3, **held) for rho in (0.5, 1.0)],
        *[line("adamw", "sam", 80.0, rho=rho, lr=2e-3, **held) for rho in (0.05, 0.1, 0.2)],
    ]
    final = [
        line("adamw", "asam", 84.0, rho=1.0, lr=2e-3, fit=95.0),
        line("adamw", "sgd", 81.0, lr=2e-3, epochs=80),
        line("adamw", "sgd", 80.0, lr=2e-3, fit=99.0),
        line("adamw", "sgd", 82.0, lr=2e-3, seed=1),
        line("adamw", "sam", 83.0, rho=0.1, lr=2e-3),
    ]
    rows = transformer_report.table(groups(tuning + final)).splitlines()[2:]
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    same = ["digits", "40%", "AdamW"]
    assert cells == [
        [*same, "alone", "0.002", "-", "1", "99.50 ± 0.71", "81.00 ± 1.41", "2"],
        [*same, "alone, 2 times the epochs", "0.002", "-", "2", "100.00", "81.00", "1"],
        [*same, "SAM", "0.002", "0.1", "2", "100.00", "83.00", "1"],
        [*same, "ASAM", "0.002", "1 (*)", "2", "95.00", "84.00", "1"],
    ]
    assert transformer_report.sections(tuning) == []


def test_each_optimizer_is_a_row_of_the_table_that_opens_the_report():
    final = [
        line("adamw", "sgd", 82.0, epochs=80, train_images=9),
        line("adamw", "sgd", 80.0, train_images=9),
        line("adamw", "asam", 85.0, rho=0.5, train_images=9),
        line("muon", "sgd", 81.0, train_images=9),
    ]
    adamw, muon = transformer_report.outcomes(groups(final), "gpu")
    assert adamw.problem == "digits, vit, AdamW, 40% label noise, 9 images, GPU"
    found = [g.final for g in (adamw.base, adamw.twice, adamw.asam) if g is not None]
    assert found == [[80.0], [82.0], [85.0]] and adamw.sam is None
    assert muon.twice is None and muon.base is not None and muon.base.final == [81.0]


def test_an_unknown_data_set_is_named():
    with pytest.raises(ConfigError, match="unknown dataset 'mnist'; the known ones are: digits"):
        transformer.Plan(["mnist"], [0.0], 1)


def test_the_command_runs_to_its_table(tmp_path, monkeypatch):
    """With the smallest network, and one choice of everything."""
    monkeypatch.setattr(transformer, "SHARED", dict(model="mlp", warmup=0.1))
    monkeypatch.setitem(transformer.PROBLEMS, "digits", dict(epochs=1, subset=973))
    monkeypatch.setattr(transformer, "RATES", (1e-3,))
    monkeypatch.setattr(transformer, "RADII", {("adamw", "sam"): (0.1,)})
    monkeypatch.setattr(transformer_report, "OPTIMIZERS", ("adamw",))
    words = ["benchmark", "transformer", "--dataset", "digits", "--noise", "0.4", "--seeds", "1"]
    done = call(*words, "--workdir", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "All 5 runs are finished" in done.stdout
    text = (tmp_path / "RESULTS.md").read_text()
    assert "## A transformer under AdamW and under Muon\n" in text
    assert text.count("| AdamW ") == 3 and "| alone, 2 times the epochs " in text
