"""AdamW and Muon in a step, against NumPy; the warm-up; what Muon takes for a matrix."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from experiments import models
from experiments.training import optimizers
from experiments.training import step as stepping
from experiments.training.spec import StepSpec, hyper_of
from tests.runs import assert_near, loop_of, made

pytestmark = pytest.mark.usefixtures("flax_promotes")
STEPS, LR, WARMUP = 4, 0.01, 0.5


def adam(m, v, g, t, b1):
    """The direction of Adam's step of number t, from 1, and its means."""
    m, v = b1 * m + (1 - b1) * g, 0.999 * v + 0.001 * g**2
    return m / (1 - b1**t) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8), m, v


def nesterov(m, g, t, beta):
    m = beta * m + (1 - beta) * g
    return beta * m / (1 - beta ** (t + 1)) + (1 - beta) * g / (1 - beta**t), m


def muon(m, g, t, beta):
    """The same of Muon, with Nesterov's momentum: five Newton-Schulz steps, scaled as Adam's is."""
    ahead, m = nesterov(m, g, t, beta)
    x = ahead.T if ahead.shape[0] > ahead.shape[1] else ahead
    x = x / np.linalg.norm(x)
    for _ in range(5):
        a = x @ x.T
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    x = x.T if ahead.shape[0] > ahead.shape[1] else x
    return 0.2 * np.sqrt(max(x.shape)) * x, m


def nadam(m, v, g, t, b1):
    ahead, m = nesterov(m, g, t, b1)
    v = 0.999 * v + 0.001 * g**2
    return ahead / (np.sqrt(v / (1 - 0.999**t)) + 1e-8), m, v


def abstract(name):
    """A network without arrays."""
    shape = dict(num_classes=10, image_shape=(8, 8, 1), dtype=jnp.float32)
    return nnx.eval_shape(lambda: models.create(name, rngs=nnx.Rngs(0), **shape))


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_steps_are_those_of_numpy(optimizer):
    values = dict(optimizer=optimizer, lr=LR, warmup=WARMUP, batch_size=32, subset=32 * STEPS)
    loop, dataset = loop_of(made(method="sgd", model="mlp", epochs=1, **values))
    state = loop.init()
    leaves, tree = jax.tree.flatten(state.params)
    expected = [np.asarray(leaf, np.float64) for leaf in leaves]
    first = [np.zeros_like(w) for w in expected]
    second = [np.zeros_like(w) for w in expected]
    order = np.asarray(loop.order(0))
    graphdef, _, rest = nnx.split(abstract("mlp"), nnx.Param, ...)

    @jax.jit
    @jax.grad
    def gradient(params, x, labels):
        logits = nnx.merge(graphdef, params, rest, copy=True)(x)
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))

    states = loop.epoch(state, 0, 0)
    beta = optimizers.DEFAULTS[optimizer]["momentum"]
    rates = [0.0, 0.5, 1.0, 0.5]  # two steps up, two of half a cosine down
    for t, share in enumerate(rates, start=1):
        batch = order[32 * (t - 1) : 32 * t]
        x = (dataset.train_images[batch] / 255 - np.asarray(dataset.mean)) / dataset.std
        at = jax.tree.unflatten(tree, [jnp.asarray(w, jnp.float32) for w in expected])
        grads = gradient(at, jnp.asarray(x, jnp.float32), dataset.train_labels[batch])
        for i, g in enumerate(np.asarray(g, np.float64) for g in jax.tree.leaves(grads)):
            if optimizer == "adamw":
                step, first[i], second[i] = adam(first[i], second[i], g, t, beta)
            elif g.ndim == 2:
                step, first[i] = muon(first[i], g, t, beta)
            else:
                step, first[i], second[i] = nadam(first[i], second[i], g, t, beta)
            decay = optimizers.DEFAULTS[optimizer]["weight_decay"] * expected[i]
            expected[i] = expected[i] - LR * share * (step + decay)
        state, _ = next(states)
        assert_near(state.params, expected, 1e-4, 2e-5)


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_the_warm_up_is_optaxs(share):
    total = 40
    schedule = optax.warmup_cosine_decay_schedule(0.0, 0.3, round(share * total), total)
    run = made(lr=0.3, warmup=share)
    spec: Any = StepSpec(None, run)  # pyright: ignore[reportArgumentType]
    progress = jnp.arange(total + 1) / total
    found = stepping.learning_rate(spec, hyper_of(run, total), progress)
    np.testing.assert_allclose(found, schedule(jnp.arange(total + 1)), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("name", ["vit", "cnn"])
def test_muon_takes_kernels_for_matrices_and_nothing_else(name):
    """Not a position embedding, which has two axes, too; and a convolution by its filters."""
    params = nnx.state(abstract(name), nnx.Param)
    state = jax.eval_shape(optimizers.base("muon", 0.0, 0.9, 0.0, nesterov=True).init, params)
    moments = {
        kind: {
            "/".join(str(getattr(key, "key", "")) for key in path).strip("/"): leaf.shape
            for path, leaf in jax.tree.leaves_with_path(inner.inner_state[0].mu)
        }
        for kind, inner in state.inner_states.items()
    }
    assert {path.rsplit("/")[-1] for path in moments["muon"]} == {"kernel"}
    own = {path.rsplit("/")[-1] for path in moments["adam"]}
    assert own == {"bias", "scale"} | ({"position_embedding"} if name == "vit" else set())
    if name == "cnn":
        kernel = jnp.asarray(np.random.default_rng(0).normal(size=(3, 3, 2, 5)), jnp.float32)
        tree = {"kernel": kernel}
        tx = optimizers.base("muon", 1.0, 0.95, 0.0, nesterov=True)
        updates: Any = tx.update(tree, tx.init(tree), tree)[0]
        matrix = np.asarray(kernel, np.float64).reshape(18, 5)
        expected = muon(np.zeros((18, 5)), matrix, 1, 0.95)[0]
        np.testing.assert_allclose(
            updates["kernel"].reshape(18, 5), -expected, rtol=1e-3, atol=1e-4
        )
