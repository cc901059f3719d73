"""The study of a language model: its text, its step, what it chooses, its table."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from experiments.config.options import Options
from experiments.datasets import topics
from experiments.models import vit
from experiments.models.text import ByteTransformer
from experiments.studies import language
from experiments.training import result_lines
from tests.runs import EVIDENCE

FUNCTIONAL = "Functional ASAM, every leaf, eta 0"


@pytest.fixture
def narrow(monkeypatch):
    monkeypatch.setattr(vit, "WIDTH", 8)
    monkeypatch.setattr(vit, "HIDDEN", 16)


def test_no_paragraph_is_trained_on_and_held_out():
    train, validation, test, fingerprint = topics.load()
    assert len(train) > 250_000 and len(validation) == len(test) > 30_000
    whole = b"".join(part.tobytes() for part in (train, validation, test)).decode()
    paragraphs = [" ".join(part.split()) for part in whole.split("\n\n")]
    assert len(set(paragraphs)) == len(paragraphs)
    assert topics.load()[3] == fingerprint and len(fingerprint) == 16


def test_no_position_sees_a_later_byte(narrow):
    model = nnx.jit(ByteTransformer, static_argnums=(0, 1))(2, 16, nnx.Rngs(0))
    read, text = nnx.jit(lambda model, text: model(text)), np.arange(16)[None]
    first, second = read(model, text), read(model, np.where(text == 9, 200, text))
    np.testing.assert_array_equal(first[0, :9], second[0, :9])
    assert (np.abs(first[0, 9:] - second[0, 9:]).max(-1) > 0).all()


@partial(jax.jit, static_argnums=0)
def gradient(graph, w, at, batch):
    """J(w)^T dL/df; the derivative of the mean cross-entropy is softmax less the label."""

    def outputs(w):
        return nnx.merge(graph, w)(batch[0])

    of = (jax.nn.softmax(outputs(at)) - jax.nn.one_hot(batch[1], 256)) / batch[1].size
    return jax.vjp(outputs, w)[1](of)[0]


@jax.jit
def perturbed(w, grads, t, rho):
    tg = jax.tree.map(jnp.multiply, t, grads)
    size = jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(tg)))
    return jax.tree.map(lambda w, t, tg: w + rho * t * tg / size, w, t, tg)


@pytest.mark.parametrize("method", ["SAM", "Functional SAM", FUNCTIONAL])
def test_a_step_takes_the_methods_gradient(method, narrow, monkeypatch):
    """J(w + eps)^T dL/df, with dL/df at w or, for SAM, at w + eps."""
    monkeypatch.setattr(language, "CONTEXT", 4)
    arm, rho = language.ARMS[method], 2.0
    graph, params = nnx.split(ByteTransformer(1, 4, nnx.Rngs(1)))
    batch = language.windows(jnp.arange(40), jnp.array([3, 20]))

    @jax.jit
    def first_moment(w):
        state = w, language.optimizer(arm, 0.0, 0.0).init(w)
        (_, opt_state), _ = language.step(method, graph, state, batch, rho, 1e-3)
        return optax.tree.get(opt_state, "mu")

    with jax.numpy_dtype_promotion("standard"):
        t = jax.tree.map(np.abs if method == FUNCTIONAL else np.ones_like, params)
        there = perturbed(params, gradient(graph, params, params, batch), t, rho)
        expected = gradient(graph, there, params if arm.functional else there, batch)
        moment = first_moment(params)
    for m, g in zip(*map(jax.tree.leaves, (moment, expected)), strict=True):
        np.testing.assert_allclose(10 * m, g, rtol=1e-3, atol=1e-5)


@pytest.fixture
def small(narrow, monkeypatch):
    """Three methods, a few steps on little text."""
    arms = {name: language.ARMS[name] for name in (language.BASE, language.TWICE, FUNCTIONAL)}
    arms[FUNCTIONAL] = arms[FUNCTIONAL]._replace(radii=(0.5, 1.0))
    values = dict(ARMS=arms, STEPS=10, SEEDS=(0, 1), RATES=(1e-3, 2e-3), CONTEXT=8, DEPTH=1)
    values["PROBLEMS"] = {"all of the text": (None, 1.0)}
    for name, value in values.items():
        monkeypatch.setattr(language, name, value)
    *texts, fingerprint = topics.load()
    little = *(text[:1000] for text in texts), fingerprint
    monkeypatch.setattr(topics, "load", lambda: little)


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
