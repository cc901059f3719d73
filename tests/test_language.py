"""The study of a language model: its text, its step, what it chooses, its table."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from experiments.config.options import Options
from experiments.datasets import topics
from experiments.models.text import ByteTransformer
from experiments.studies import language
from experiments.training import result_lines
from tests.runs import EVIDENCE

FUNCTIONAL = "Functional ASAM, every leaf, eta 0"


def test_no_paragraph_is_trained_on_and_held_out():
    train, validation, test, fingerprint = topics.load()
    assert len(train) > 250_000 and len(validation) == len(test) > 30_000
    whole = b"".join(part.tobytes() for part in (train, validation, test)).decode()
    paragraphs = [" ".join(part.split()) for part in whole.split("\n\n")]
    assert len(set(paragraphs)) == len(paragraphs)
    assert topics.load()[3] == fingerprint and len(fingerprint) == 16


def test_no_position_sees_a_later_byte():
    model = ByteTransformer(2, 16, nnx.Rngs(0))
    text = jnp.arange(16)[None]
    first, second = model(text), model(text.at[0, 9].set(200))
    np.testing.assert_array_equal(first[0, :9], second[0, :9])
    assert (jnp.abs(first[0, 9:] - second[0, 9:]).max(-1) > 0).all()


@pytest.mark.parametrize("method", ["SAM", "Functional SAM", FUNCTIONAL])
def test_a_step_takes_the_methods_gradient(method, monkeypatch):
    """J(w + eps)^T dL/df, with dL/df at w or, for SAM, at w + eps."""
    monkeypatch.setattr(language, "CONTEXT", 4)
    arm, rho = language.ARMS[method], 2.0
    graph, params = nnx.split(ByteTransformer(1, 4, nnx.Rngs(1)))
    batch = language.windows(jnp.arange(40), jnp.array([3, 20]))

    def outputs(w):
        return nnx.merge(graph, w)(batch[0])

    def gradient(w, at):
        """The derivative of the mean cross-entropy is softmax less the label."""
        of = (jax.nn.softmax(outputs(at)) - jax.nn.one_hot(batch[1], 256)) / batch[1].size
        return jax.vjp(outputs, w)[1](of)[0]

    @jax.jit
    def first_moment_and_gradient(w):
        t = jax.tree.map(jnp.abs if method == FUNCTIONAL else jnp.ones_like, w)
        tg = jax.tree.map(jnp.multiply, t, gradient(w, w))
        size = jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(tg)))
        there = jax.tree.map(lambda w, t, tg: w + rho * t * tg / size, w, t, tg)
        state = w, language.optimizer(arm, 0.0, 0.0).init(w)
        (_, opt_state), _ = language.step(method, graph, state, batch, rho, 1e-3)
        return optax.tree.get(opt_state, "mu"), gradient(there, w if arm.functional else there)

    with jax.numpy_dtype_promotion("standard"):
        moment, expected = first_moment_and_gradient(params)
    for m, g in zip(*map(jax.tree.leaves, (moment, expected)), strict=True):
        np.testing.assert_allclose(10 * m, g, rtol=1e-3, atol=1e-5)


@pytest.fixture
def small(monkeypatch):
    """Two methods, a few steps."""
    arms = {name: language.ARMS[name] for name in (language.BASE, language.TWICE, FUNCTIONAL)}
    arms[FUNCTIONAL] = arms[FUNCTIONAL]._replace(radii=(0.5, 1.0))
    values = dict(ARMS=arms, STEPS=10, SEEDS=(0, 1), RATES=(1e-3, 2e-3), CONTEXT=8)
    values["PROBLEMS"] = {"all of the text": (None, 1.0)}
    for name, value in values.items():
        monkeypatch.setattr(language, name, value)


def test_it_chooses_by_the_validation_loss_and_goes_on(small, tmp_path, capsys):
    with jax.numpy_dtype_promotion("standard"):
        language.run(Options(workdir=tmp_path))
    lines = result_lines.read(tmp_path, language.KIND)[0]
    tuned = [line for line in lines if line["seed"] == language.TUNING_SEED]
    assert len(tuned) == 4 and len(lines) == 4 + 3 * 2
    best = min(tuned[:2], key=lambda line: line["test_loss"])["lr"]
    assert {line["lr"] for line in lines[2:]} == {best}
    radius = min(tuned[2:], key=lambda line: line["test_loss"])["rho"]
    assert {line["rho"] for line in lines[-2:]} == {radius}
    capsys.readouterr()
    language.run(Options(workdir=tmp_path))  # nothing is left to do
    assert capsys.readouterr().out == ""
    (section,) = language.sections(tmp_path)
    assert section.body.count("| Functional ASAM") == 1 and f"lr {best:g} (*)" in section.body


def test_stored_lines_are_the_runs_that_their_ids_say():
    lines = result_lines.read(EVIDENCE, language.KIND)[0]
    assert lines
    for line in lines:
        one = {name: line[name] for name in next(language.planned([], "")) if name != "run_id"}
        assert language.run_id(one) == line["run_id"]
