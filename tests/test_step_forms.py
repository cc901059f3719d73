"""Forms of a step in training: their loops, their names, and the choice of their settings."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cli import call
from test_loops import run, setting

import asam_jax
from experiments.benchmarks import pareto, pareto_report
from experiments.config import run_config, step_forms
from experiments.config.errors import ConfigError
from experiments.datasets import arrays
from experiments.reporting.tables import groups
from experiments.training import loops, reused_direction, spec

pytestmark = pytest.mark.usefixtures("flax_promotes")
EVIDENCE = pathlib.Path(__file__).parent.parent / "experiments" / "evidence" / "results.jsonl"


@pytest.mark.parametrize("variant", ["look4", "part16-steady", "last", "early4", "stale"])
def test_the_same_seed_gives_the_same_run_on_either_loop(variant):
    """The host decides in one whether to climb, a condition in the other."""
    made, dataset = setting("asam", variant=variant, weight=0.3, rho=0.3)
    scanned, _ = run("scan", made, dataset, 5)
    hosted, _ = run("host", made, dataset, 5)
    for a, b in zip(jax.tree.leaves(hosted.params), jax.tree.leaves(scanned.params), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-5)


def test_what_climbs_at_every_step_is_the_exact_form(monkeypatch):
    monkeypatch.setitem(step_forms.STEP_FORMS, "every1", step_forms.StepForm("", every=1))
    monkeypatch.setitem(step_forms.STEP_FORMS, "sigma0", step_forms.StepForm("", descent="gsam"))
    exact, _ = run("host", *setting("asam"), 0)
    for name in ("every1", "sigma0"):
        same, _ = run("host", *setting("asam", variant=name), 0)
        for a, b in zip(jax.tree.leaves(exact.params), jax.tree.leaves(same.params), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_a_stale_direction_is_taken_anew_below_the_cosine_and_counted():
    """Never below any: the exact form's ascents, at twice SGD's cost. Else as the rule goes."""
    always, _ = run("host", *setting("asam", variant="stale", weight=2.0), 0)
    exact, _ = run("host", *setting("asam"), 0)
    assert int(always.memory.ascents) == int(always.step)
    for a, b in zip(jax.tree.leaves(exact.params), jax.tree.leaves(always.params), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)

    made, dataset = setting("asam", variant="stale", weight=0.3, rho=0.5)
    hyper = spec.hyper_of(made, 100)
    loop = loops.make_loop("host", spec.spec_of(made, dataset), dataset, hyper, 0)
    below = 1  # the first step always climbs
    for state, _ in loop.epoch(loop.init(), 0, 0):
        assert int(state.memory.ascents) == below
        below += float(state.memory.cosine) < 0.3


def test_stale_against_numpy():
    """A step with a stale direction, and one with a fresh one, of a quadratic loss."""
    a = np.array([[3.0, 1.0], [1.0, 2.0]])
    w, kept, rho = np.array([1.0, -2.0]), np.array([0.5, 1.0]), 0.3
    state = reused_direction.ReusedDirection(
        jnp.asarray(kept, jnp.float32), jnp.float32(0), jnp.int32(4)
    )

    def loss(w):
        return 0.5 * w @ jnp.asarray(a, jnp.float32) @ w, None

    def eps_of(g):
        return asam_jax.perturbation(
            jnp.asarray(w, jnp.float32), g, rho=rho, operator=asam_jax.identity()
        )

    for climb, direction in ((False, kept), (True, a @ w), (jnp.array(True), a @ w)):
        eps = rho * direction / np.linalg.norm(direction)
        expected = a @ (w + eps)
        (value, _), grads, new = reused_direction.gradient(
            state, jnp.asarray(w, jnp.float32), loss, eps_of, climb
        )
        np.testing.assert_allclose(value, 0.5 * (w + eps) @ a @ (w + eps), rtol=1e-5)
        np.testing.assert_allclose(grads, expected, rtol=1e-5)
        np.testing.assert_allclose(new.direction, direction, rtol=1e-6)
        cosine = expected @ direction / np.linalg.norm(expected) / np.linalg.norm(direction)
        np.testing.assert_allclose(new.cosine, cosine, rtol=1e-5)
        assert int(new.ascents) == 4 + bool(climb)


@pytest.mark.parametrize(
    ("form", "steps"), [("early4", range(0, 25, 4)), ("late4", range(76, 100, 4))]
)
def test_a_schedule_of_ascents(form, steps):
    variant = step_forms.STEP_FORMS[form]
    assert [n for n in range(100) if variant.climbs(n, 100)] == list(steps)
    assert variant.gradients == 1 + 1 / 16


def test_finished_runs_keep_the_names_that_they_had_before_there_were_forms():
    record = json.loads(EVIDENCE.read_text().splitlines()[-1])
    names = ("dataset", "method", "label_noise", "seed", "rho", "epochs")
    given = {n: record[n] for n in names if n != "rho" or record["method"] != "sgd"}
    made = run_config.make(**given)
    assert made.run_id(record["dataset_fingerprint"]) == record["run_id"]
    other = run_config.make("digits", "asam", variant="last")
    assert other.as_json()["variant"] == "last" and "variant" not in made.as_json()


def test_the_validation_split_is_the_last_training_images_with_their_true_labels():
    whole = arrays.load("digits")
    made = run_config.make("digits", "asam", label_noise=0.4, validation=0.25)
    dataset = arrays.prepare(whole, made)
    count = len(whole.train_labels)
    held = round(0.25 * count)
    assert len(dataset.train_labels) == count - held
    np.testing.assert_array_equal(dataset.test_images, whole.train_images[count - held :])
    np.testing.assert_array_equal(dataset.test_labels, whole.train_labels[count - held :])
    assert not np.array_equal(dataset.train_labels, whole.train_labels[: count - held])


def test_every_form_has_as_many_settings_to_choose_from():
    plan = pareto.plan("digits", None, None, seeds=5, tuning_seeds=2)
    assert plan.forms == list(step_forms.STEP_FORMS)
    assert {len(plan.candidates(form)) for form in plan.forms} == {len(pareto.RADII)}
    seeds = {run.seed for run in plan.tuning(plan.candidates("last")[0])}
    assert seeds.isdisjoint(run.seed for run in plan.final("sgd"))


def test_the_best_on_the_validation_split_is_chosen():
    records = [
        dict(rho=rho, test_accuracy_final=accuracy, **form)
        for form, rho, accuracy in [
            ({}, 0.5, 90.0),
            ({}, 0.5, 92.0),
            ({}, 1.0, 93.0),
            ({}, 1.0, 88.0),
            (dict(variant="look4", weight=0.3), 0.5, 80.0),
            (dict(variant="look4", weight=0.7), 0.5, 81.0),
        ]
    ]
    assert pareto.choose(records) == {
        "exact": dict(variant="exact", rho=0.5, weight=0.0),
        "look4": dict(variant="look4", rho=0.5, weight=0.7),
    }


def test_gains_are_relative_to_exact_asams_above_sgd():
    def line(method, accuracy, epochs=30, **values):
        made = run_config.make("digits", method, epochs=epochs, **values).as_json()
        return made | dict(test_accuracy_final=accuracy, dataset_fingerprint="x")

    found = groups(
        [
            line("sgd", 80.0),
            line("sgd", 84.0, epochs=60),
            line("asam", 90.0),
            line("asam", 89.0, variant="part16"),
            line("asam", 78.0, variant="last"),
            line("asam", 85.0, variant="stale", weight=0.2) | dict(gradients_per_step=1.5),
        ]
    )
    assert pareto_report.gains(found) == pytest.approx(
        {
            "SGD": 0.0,
            "SGD, twice the epochs": 0.4,
            "ASAM": 1.0,
            "part16": 0.9,
            "last": -0.2,
            "stale": 0.5,
        }
    )
    text = pareto_report.table(found)
    costs = [row.split("|")[3].strip() for row in text.splitlines()[2:]]
    assert costs == ["1", "1", "1.062", "1.5", "2", "2"]


def test_pareto_runs_to_its_table_and_picture(tmp_path):
    arguments = ["--forms", "part16", "--radii", "0.5,1", "--epochs", 1, "--seeds", 1]
    arguments += ["--tuning-seeds", 1, "--model", "mlp"]
    done = call("benchmark", "pareto", *arguments, "--workdir", tmp_path)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "RESULTS.md").read_text()
    assert "| part16 " in text and "| SGD, twice the epochs " in text
    assert "Chosen from 2 settings a form, 1 runs each." in text
    assert (tmp_path / "pareto_digits_mlp_noise40.png").stat().st_size > 10_000
    again = call("benchmark", "pareto", *arguments, "--workdir", tmp_path)
    assert "4 of 4 runs are finished already." in again.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["benchmark", "pareto", "--forms", "nosam"], "unknown form 'nosam'; the known ones are: "),
        (["benchmark", "pareto", "--dataset", "mnist"], "unknown dataset 'mnist'"),
        (["benchmark", "pareto", "--radii", "x"], "radii='x' must be numbers"),
        (["train", "--variant", "nosam"], "unknown variant 'nosam'"),
        (["train", "--method", "sgd", "--variant", "last"], "is a form of sam and asam"),
    ],
)
def test_bad_names_are_answered_with_the_known_ones(arguments, message, tmp_path):
    done = call(*arguments, "--workdir", tmp_path)
    assert done.returncode == 2 and message in done.stderr


def test_forms_run_on_one_device():
    with pytest.raises(ConfigError, match="one device"):
        run_config.make("digits", "asam", variant="last", devices=2)
