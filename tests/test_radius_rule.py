"""Rules that choose rho in training: when, what, at which cost, and through an interruption."""

import jax.numpy as jnp
import numpy as np
import pytest

import asam_jax
from experiments.training import radius_rule, runner
from experiments.training.radius_rule import RULES
from experiments.training.stop import Stopped
from tests.runs import loop_of, made

SMALL = dict(model="mlp", subset=256, rho=1.0)


def ruled(rule="rise", target=0.3, **more):
    return made(**(SMALL | dict(radius_rule=rule, target=target, epochs=4) | more))


@pytest.mark.parametrize(("epochs", "times"), [(1, 1), (4, 4), (10, 10), (30, 10), (200, 10)])
def test_the_radius_is_chosen_before_the_first_epoch_and_ten_times_at_most(epochs, times):
    run = ruled(epochs=epochs)
    when = [epoch for epoch in range(epochs) if radius_rule.due(run, epoch)]
    assert when[0] == 0 and len(when) == times
    assert not radius_rule.due(made(**SMALL), 0)


def test_each_rule_solves_for_its_own_quantity():
    # L rises by rho + rho^2 where its linearisation rises by rho, from L(w) = 2.
    radii = jnp.linspace(0.02, 2.0, 100)
    profile = asam_jax.RadiusProfile(radii + radii**2, radii, jnp.float32(1), jnp.float32(2))
    for name, target in (("rise", 0.75), ("relative", 0.375), ("linear", 0.5), ("departure", 1.5)):
        np.testing.assert_allclose(RULES[name](profile, radii, target), 0.5, atol=1e-3)


@pytest.mark.parametrize("rule", RULES)
def test_where_the_loss_overflows_the_radius_stays(rule):
    class Overflown:
        def profile(self, state, epoch, radii):
            nothing = jnp.full(len(radii), jnp.nan)
            return asam_jax.RadiusProfile(nothing, nothing, *[jnp.float32(jnp.nan)] * 2)

    assert radius_rule.chosen(ruled(rule, 1.5), Overflown(), None, 0, 0.7) == 0.7


def test_the_loss_rises_by_the_target_at_the_chosen_radius():
    run = ruled(target=0.05)
    loop, _ = loop_of(run)
    state = loop.init()
    rho = radius_rule.chosen(run, loop, state, 0, 1.0)
    assert 0.25 < rho < 4.0
    found = loop.profile(state, 0, [rho])
    np.testing.assert_allclose(found.rise, [0.05], rtol=0.15)  # linear between coarse radii


def test_a_run_that_was_stopped_goes_on_with_the_radius_it_had(tmp_path):
    run = ruled(epochs=2)
    whole = runner.run_all([run], runner.Options(workdir=tmp_path / "whole"))[0]
    parts, stops = None, 0
    while parts is None and stops < 10:  # a step or so at a time
        try:
            options = runner.Options(workdir=tmp_path / "parts", time_limit=1e-3)
            parts = runner.run_all([run], options)[0]
        except Stopped:
            stops += 1
    assert parts is not None and stops > 1
    assert parts["params_sha256"] == whole["params_sha256"]
    assert parts["metrics"]["rho"] == whole["metrics"]["rho"]
    assert len(set(whole["metrics"]["rho"])) > 1
    assert whole["gradients_per_step"] == pytest.approx(2 + 2 * (1 + 5 / 3) / 4, abs=1e-4)
