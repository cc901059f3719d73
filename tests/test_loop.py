"""The host's loop and the scan run the same step, of each variant: when it perturbs, its cost."""

from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

import asam_jax
from experiments.training import loop as loops
from experiments.training import variants, weight_noise
from experiments.training.step import epoch_order
from experiments.training.variants import VARIANTS, Variant
from tests.cli import lines, ran
from tests.runs import assert_near, loop_of, made, trained

pytestmark = pytest.mark.usefixtures("flax_promotes", "small_mlp")
SMALL = dict(model="mlp", epochs=2, subset=300, batch_size=64, label_noise=0.4)
SCAN = ["train", "--model", "mlp", "--subset", 256, "--epochs", 2, "--seeds", 2, "--loop", "scan"]


def made_of(variant="exact", weight=0.3):
    return made(variant=variant, rho=0.3, weight=weight, **SMALL)


@pytest.mark.parametrize("name", ["sgd", "asam", "look4", "last", "early4"])
def test_the_same_seed_gives_the_same_run_either_way(name):
    """The host decides in one whether to perturb, a condition in the other."""
    run = made_of(name) if name in VARIANTS else made(method=name, seed=5, **SMALL)
    (scanned, found), (hosted, expected) = trained(run, "scan"), trained(run)
    assert_near(hosted, scanned, 2e-3, 2e-5)
    np.testing.assert_allclose(found, expected, rtol=5e-3)


def test_a_scan_that_is_stopped_leaves_whole_lines_and_ends_with_the_same_bits(tmp_path):
    """The limit ends each call after an epoch, so that it takes several to finish two seeds."""
    ran(*SCAN, "--workdir", tmp_path / "whole")
    expected = lines(tmp_path / "whole")
    assert [record["seed"] for record in expected] == [0, 1]
    assert len({record["params_sha256"] for record in expected}) == 2
    stopped, finished = tmp_path / "stopped", [0]
    while finished[-1] < 2 and len(finished) < 9:
        ran(*SCAN, "--workdir", stopped, "--time-limit", "0.01")
        path = stopped / "results.jsonl"
        finished.append(len(lines(stopped)) if path.exists() else 0)
    assert finished[1] == 0 and 1 in finished and finished[-1] == 2
    names = ("run_id", "params_sha256", "metrics", "loop")
    for record, whole in zip(lines(stopped), expected, strict=True):
        assert [record[name] for name in names] == [whole[name] for name in names]


def test_an_epoch_visits_every_image_once():
    spec = loop_of(made(**SMALL))[0].spec
    order, other = (epoch_order(spec, jnp.uint32(3), jnp.int32(n), 300).tolist() for n in (1, 2))
    assert len(order) == len(set(order)) == 256 and order != other


def test_evaluation_counts_the_padded_images_not():
    """500 test images in one batch, or 1,300 in two that do not fill up."""
    loop, dataset = loop_of(made(**SMALL))
    state = loop.init()
    images = np.concatenate([dataset.test_images] * 3)[:1301]
    labels = np.concatenate([dataset.test_labels] * 3)[:1301]
    weights = loop.spec.model, state.params, state.rest
    whole, part = (loops.EvaluationSet(images[:n], labels[:n]).mean(*weights) for n in (1301, 301))
    expected = (1000 * np.array(loop.evaluate(state)) + 301 * np.array(part)) / 1301
    np.testing.assert_allclose(whole, expected, rtol=1e-5)


def test_what_perturbs_at_every_step_is_the_exact_variant(monkeypatch):
    monkeypatch.setitem(VARIANTS, "every1", Variant("", every=1))
    monkeypatch.setitem(VARIANTS, "sigma0", Variant("", descent=asam_jax.gsam_descent))
    exact = trained(made_of(weight=0.0))[0]
    for name in ("every1", "sigma0"):
        assert_near(trained(made_of(name, 0.0))[0].params, exact.params, 1e-4, 1e-6)


def test_when_a_variant_perturbs_and_what_a_step_costs():
    for name, steps in (("early4", range(0, 25, 4)), ("late4", range(76, 100, 4))):
        assert [n for n in range(100) if VARIANTS[name].perturbs(n, 100)] == list(steps)
        assert VARIANTS[name].gradients == 1 + 1 / 16
    costs = {name: variants.gradients_per_step("asam", name) for name in VARIANTS}
    assert (costs["exact"], costs["last"], costs["part4"], costs["look4"]) == (2, 1, 1.25, 1.25)
    assert variants.gradients_per_step("sgd") == 1


def test_le_sam_perturbs_to_where_the_linearised_loss_rises_by_the_weight():
    """In one step: the gradient is that of asam at this radius, or at the largest."""
    spec = loop_of(made_of("le-sam"))[0].spec
    w = {"kernel": jnp.array([1.0, -2.0, 0.5])}
    state = SimpleNamespace(params=w, rest=(), memory=())
    loss = lambda params, rest: (jnp.sum(params["kernel"] ** 4), (rest, 0))  # noqa: E731
    operator = asam_jax.elementwise(0.01)
    slope = jnp.linalg.norm(operator(w)["kernel"] * 4 * w["kernel"] ** 3)
    for largest, rho in ((1.0, 0.6 / slope), (1e-3, 1e-3)):
        hyper = dict(rho=jnp.float32(largest), weight=jnp.float32(0.6))
        _, found, _ = variants.gradient(spec, state, hyper, loss, loss)
        expected = asam_jax.value_and_grad(loss, rho=rho, operator=operator, has_aux=True)
        expected = expected(w, ())[1]
        assert_near(found, expected, 1e-5, 1e-5)
    total = dict(weight=jnp.float32(0.6), total_steps=jnp.float32(100))
    weights = [variants.at_step(spec, total, step)["weight"] for step in (0, 80, 90, 100)]
    np.testing.assert_allclose(weights, [0.6, 0.6, 0.3, 0.0], atol=1e-6)


def test_weights_carry_noise_of_their_own_size():
    w = {"a": jnp.full(10_000, 3.0), "b": jnp.linspace(-1.0, 1.0, 10_000)}
    times = weight_noise.noisy(w, "multiplicative", 0.5, 0)
    plus = weight_noise.noisy(w, "additive", 0.5, 0)
    np.testing.assert_allclose(jnp.std(times["b"] / w["b"] - 1), 0.5, rtol=0.05)
    for name, size in (("a", 3.0), ("b", 1 / 3**0.5)):
        np.testing.assert_allclose(jnp.std(plus[name] - w[name]), 0.5 * size, rtol=0.05)
    loop, _ = loop_of(made(**SMALL))
    found = weight_noise.accuracies(loop, loop.init(), draws=2)
    assert {len(levels) for levels in found.values()} == {len(weight_noise.LEVELS)}
