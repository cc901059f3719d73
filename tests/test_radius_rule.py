"""Rules that choose rho in training: when, what, at which cost, and through an interruption."""

import jax.numpy as jnp
import numpy as np
import pytest

import asam_jax
from experiments.benchmarks import radius, radius_report
from experiments.config.errors import ConfigError
from experiments.config.run_config import make
from experiments.datasets import arrays
from experiments.reporting.tables import groups
from experiments.training import loops, radius_rule, runner
from experiments.training.radius_rule import RULES
from experiments.training.stop import Stopped

SMALL = dict(dataset="digits", model="mlp", method="asam", subset=256, rho=1.0)


def ruled(rule="rise", target=0.3, **more):
    return make(**(SMALL | dict(radius_rule=rule, target=target, epochs=4) | more))


@pytest.mark.parametrize(("epochs", "times"), [(1, 1), (4, 4), (10, 10), (30, 10), (200, 10)])
def test_the_radius_is_chosen_before_the_first_epoch_and_ten_times_at_most(epochs, times):
    config = ruled(epochs=epochs)
    when = [epoch for epoch in range(epochs) if radius_rule.due(config, epoch)]
    assert when[0] == 0 and len(when) == times
    assert not radius_rule.due(make(**SMALL), 0)


@pytest.mark.parametrize("settings", [dict(dataset="digits"), radius.fitted.PROBLEM])
def test_choosing_costs_at_most_a_twentieth(settings):
    images = {"digits": 1437, "cifar10": 2500}[settings["dataset"]]
    config = make(method="asam", **settings, radius_rule="rise", target=0.3)
    steps = config.epochs * (images // config.batch_size)
    assert radius_rule.cost(config) / (2 * steps) <= 0.05


def test_each_rule_solves_for_its_own_quantity():
    # L rises by rho + rho^2 where its linearisation rises by rho, from L(w) = 2.
    radii = jnp.linspace(0.02, 2.0, 100)
    profile = asam_jax.RadiusProfile(radii + radii**2, radii, jnp.float32(1), jnp.float32(2))
    for name, target, expected in (
        ("rise", 0.75, 0.5),
        ("relative", 0.375, 0.5),
        ("linear", 0.5, 0.5),
        ("departure", 1.5, 0.5),
    ):
        np.testing.assert_allclose(RULES[name](profile, radii, target), expected, atol=1e-3)


def test_the_loss_rises_by_the_target_at_the_chosen_radius():
    config = ruled(target=0.05)
    dataset = arrays.prepare(arrays.load("digits", None), config)
    loop = loops.of_run("host", config, dataset)
    state = loop.init()
    rho = radius_rule.chosen(config, loop, state, 0, 1.0)
    assert 0.25 < rho < 4.0
    found = loops.profile(loop, state, 0, [rho])
    np.testing.assert_allclose(found.rise, [0.05], rtol=0.15)  # linear between coarse radii


def test_a_run_that_was_stopped_goes_on_with_the_radius_it_had(tmp_path):
    config = ruled(epochs=2)
    whole = runner.run_all([config], runner.Options(workdir=tmp_path / "whole"))[0]
    parts = None
    stops = 0
    while parts is None and stops < 10:  # a step or so at a time
        try:
            options = runner.Options(workdir=tmp_path / "parts", time_limit=1e-3)
            parts = runner.run_all([config], options)[0]
        except Stopped:
            stops += 1
    assert parts is not None and stops > 1
    assert parts["params_sha256"] == whole["params_sha256"]
    assert parts["metrics"]["rho"] == whole["metrics"]["rho"]
    assert len(set(whole["metrics"]["rho"])) > 1
    assert whole["gradients_per_step"] == pytest.approx(2 + 2 * (1 + 5 / 3) / 4, abs=1e-4)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (dict(radius_rule="falling"), "unknown radius_rule 'falling'"),
        (dict(method="sgd", rho=None), "leave --radius-rule out for method 'sgd'"),
        (dict(target=0.0), "give a --target above 0"),
        (dict(radius_rule="departure", target=1.0), "give a --target above 1"),
        (dict(rho=0.0), "and a --rho above 0"),
    ],
)
def test_what_no_rule_can_do_is_refused(given, said):
    with pytest.raises(ConfigError, match=said):
        ruled(**given)


def line(rule, value, accuracy, *, noise=0.4, seed=0, **more):
    shared = dict(dataset="digits", model="cnn", label_noise=noise, wall_seconds=1.0, epochs=30)
    if rule in ("sgd", "fixed"):
        of_rule = dict(method="sgd" if rule == "sgd" else "asam", rho=value)
    else:
        of_rule = dict(method="asam", rho=1.0, radius_rule=rule, target=value)
        of_rule["gradients_per_step"] = 2.08
    return shared | of_rule | dict(seed=seed, test_accuracy_final=accuracy) | more


def tuning(rule, value, accuracy, **more):
    return line(rule, value, accuracy, seed=5, validation=0.25, **more)


TUNING = [
    tuning("sgd", 0.0, 85.0),
    tuning("fixed", 0.5, 90.0),
    tuning("fixed", 1.0, 95.0),
    tuning("fixed", 2.0, 95.0),
    tuning("rise", 0.2, 94.0),
    tuning("rise", 0.3, 96.0),
    tuning("sgd", 0.0, 60.0, noise=0.8),
    tuning("fixed", 2.0, 80.0, noise=0.8),
    tuning("fixed", 1.0, 70.0, noise=0.8),
    tuning("rise", 0.2, 80.0, noise=0.8),
    tuning("rise", 0.3, 76.0, noise=0.8),
    tuning("sgd", 0.0, 99.0, noise=0.0),
    tuning("fixed", 1.0, 99.5, noise=0.0),
    tuning("rise", 0.2, 98.0, noise=0.0),  # of a gain of half a point a share is noise
    tuning("linear", 0.2, 99.0, noise=0.8),  # not run on all problems
]


def test_a_constant_is_chosen_for_each_problem_and_a_target_for_all():
    found = radius_report.tuned(TUNING)
    assert radius_report.chosen_radius(found["digits", "cnn", 0.4]) == 1.0
    assert radius_report.chosen_radius(found["digits", "cnn", 0.8]) == 2.0
    assert radius_report.chosen_targets(found) == {"rise": 0.2}  # 0.9 and 1, not 1.1 and 0.8


def test_the_shares_in_the_table():
    final = [
        line("sgd", 0.0, 80.0),
        line("fixed", 1.0, 90.0),
        line("rise", 0.2, 91.0),
        line("sgd", 0.0, 50.0, noise=0.8),
        line("fixed", 1.0, 62.0, noise=0.8),
        line("fixed", 2.0, 70.0, noise=0.8),
        line("rise", 0.2, 68.0, noise=0.8),
    ]
    rows = radius_report.table(groups(final), radius_report.tuned(TUNING)).splitlines()
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[2:]]
    assert cells == [
        ["digits, cnn, 40% noise", "80.00", "90.00 (rho 1)", "90.00 (1.00)", "91.00 (1.10)"],
        ["digits, cnn, 80% noise", "50.00", "70.00 (rho 2)", "62.00 (0.60)", "68.00 (0.90)"],
        ["worst share", "", "", "0.60", "0.90"],
        ["mean share", "", "", "0.80", "1.00"],
    ]


def test_the_test_set_judges_no_rule():
    plan = radius.Plan(["digits"], 2)
    problem, noise = plan.levels()[0]
    runs = plan.tuning(problem, noise)
    assert {run.validation for run in runs} == {0.25} and {run.seed for run in runs} == {2}
    assert {(r.radius_rule, r.target) for r in runs if r.radius_rule != "fixed"} == {
        (rule, target) for rule, targets in radius.TARGETS.items() for target in targets
    }
    final = plan.final(problem, noise, 2.0, {"rise": 0.3})
    assert {(run.seed, run.validation) for run in final} == {(0, 0.0), (1, 0.0)}
    made = [(run.method, run.rho, run.radius_rule, run.target) for run in final if run.seed == 0]
    assert made == [
        ("sgd", 0.0, "fixed", 0.0),
        ("asam", 1.0, "fixed", 0.0),
        ("asam", 2.0, "fixed", 0.0),
        ("asam", 1.0, "rise", 0.3),
    ]
    with pytest.raises(ConfigError, match="unknown problem 'mnist'"):
        radius.Plan(["mnist"], 2)
