"""The variants of a step in training: on either loop, when they perturb, what they cost."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import asam_jax
from experiments.training import reused_direction, variants
from experiments.training.variants import VARIANTS, Variant
from tests.runs import loop_of, made, trained

pytestmark = pytest.mark.usefixtures("flax_promotes")
SMALL = dict(model="mlp", epochs=2, subset=300, batch_size=64, label_noise=0.4, rho=0.3, weight=0.3)


def assert_near(found, expected, rtol, atol):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)


@pytest.mark.parametrize("variant", ["look4", "part16-steady", "last", "early4", "stale"])
def test_the_same_seed_gives_the_same_run_on_either_loop(variant):
    """The host decides in one whether to perturb, a condition in the other."""
    run = made(variant=variant, **SMALL)
    assert_near(trained(run)[0].params, trained(run, "scan")[0].params, 2e-3, 2e-5)


def test_what_perturbs_at_every_step_is_the_exact_variant(monkeypatch):
    monkeypatch.setitem(VARIANTS, "every1", Variant("", every=1))
    monkeypatch.setitem(VARIANTS, "sigma0", Variant("", descent=asam_jax.gsam_descent))
    exact = trained(made(**SMALL | dict(weight=0.0)))[0]
    for name in ("every1", "sigma0"):
        same = trained(made(variant=name, **SMALL | dict(weight=0.0)))[0]
        assert_near(same.params, exact.params, 1e-4, 1e-6)


def test_an_old_direction_is_taken_anew_below_the_cosine_and_counted():
    """Never below any: the exact variant, at twice SGD's cost. Else as the rule goes."""
    always = trained(made(variant="stale", **SMALL | dict(weight=2.0)))[0]
    assert int(always.memory.ascents) == int(always.step)
    assert_near(always.params, trained(made(**SMALL))[0].params, 1e-4, 1e-6)
    loop, _ = loop_of(made(variant="stale", **SMALL))
    below = 1  # the first step always perturbs
    for state, _ in loop.epoch(loop.init(), 0, 0):
        assert int(state.memory.ascents) == below
        below += float(state.memory.cosine) < 0.3


def test_an_old_direction_against_numpy():
    """A step with an old direction, and one with a fresh one, of a quadratic loss."""
    a = np.array([[3.0, 1.0], [1.0, 2.0]])
    w, kept, rho = np.array([1.0, -2.0]), np.array([0.5, 1.0]), 0.3
    at = jnp.asarray(w, jnp.float32)
    direction = jnp.asarray(kept, jnp.float32)
    state = reused_direction.ReusedDirection(direction, jnp.float32(0), jnp.int32(4))

    def loss(w):
        return 0.5 * w @ jnp.asarray(a, jnp.float32) @ w, None

    def eps_of(g):
        return asam_jax.perturbation(at, g, rho=rho, operator=asam_jax.identity())

    for perturb, along in ((False, kept), (True, a @ w), (jnp.array(True), a @ w)):
        eps = rho * along / np.linalg.norm(along)
        expected = a @ (w + eps)
        (value, _), grads, new = reused_direction.gradient(state, at, loss, eps_of, perturb)
        np.testing.assert_allclose(value, 0.5 * (w + eps) @ a @ (w + eps), rtol=1e-5)
        np.testing.assert_allclose(grads, expected, rtol=1e-5)
        np.testing.assert_allclose(new.direction, along, rtol=1e-6)
        cosine = expected @ along / np.linalg.norm(expected) / np.linalg.norm(along)
        np.testing.assert_allclose(new.cosine, cosine, rtol=1e-5)
        assert int(new.ascents) == 4 + bool(perturb)


@pytest.mark.parametrize(
    ("name", "steps"), [("early4", range(0, 25, 4)), ("late4", range(76, 100, 4))]
)
def test_a_schedule_of_perturbations(name, steps):
    variant = VARIANTS[name]
    assert [n for n in range(100) if variant.perturbs(n, 100)] == list(steps)
    assert variant.gradients == 1 + 1 / 16


def test_what_a_step_costs():
    costs = {name: variants.gradients_per_step("asam", name) for name in VARIANTS}
    assert (costs["exact"], costs["last"], costs["part4"], costs["look4"]) == (2, 1, 1.25, 1.25)
    assert variants.gradients_per_step("sgd") == 1
