"""A step in training: AdamW and Muon against NumPy; and w = s * theta: SGD, SAM and ASAM in w."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import asam_jax
from experiments import models
from experiments.training import optimizers, parameterization
from experiments.training import step as stepping
from tests.runs import assert_near, loop_of, made, trained

pytestmark = pytest.mark.usefixtures("flax_promotes", "small_mlp")
STEPS, LR, WARMUP = 4, 0.01, 0.5
SCALINGS = ("ntk", "layer", "node")
SMALL = dict(model="mlp", subset=96, batch_size=32, epochs=1, weight_decay=0.1)


def gradients(loop, dataset, state):
    """Of the mean loss on some of the training images at parameters."""
    evaluate = jax.jit(stepping.evaluate, static_argnums=0)

    def loss(params, index):
        images, labels = dataset.train_images[index], dataset.train_labels[index]
        return evaluate(loop.spec.model, params, state.rest, images, labels)[0] / len(index)

    return jax.grad(loss)


def mean(m, g, t, beta, nesterov):
    """The mean of the gradients after step number t, from 1, as the step takes it, and as kept."""
    m = beta * m + (1 - beta) * g
    if nesterov:
        return beta * m / (1 - beta ** (t + 1)) + (1 - beta) * g / (1 - beta**t), m
    return m / (1 - beta**t), m


def orthogonal(m):
    """Muon's direction: five Newton-Schulz steps, scaled as Adam's is."""
    x = m.T if m.shape[0] > m.shape[1] else m
    x = x / np.linalg.norm(x)
    for _ in range(5):
        a = x @ x.T
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    x = x.T if m.shape[0] > m.shape[1] else x
    return 0.2 * np.sqrt(max(x.shape)) * x


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
    gradient = gradients(loop, dataset, state)
    states = loop.epoch(state, 0, 0)
    beta = optimizers.DEFAULTS[optimizer]["momentum"]
    rates = [0.0, 0.5, 1.0, 0.5]  # two steps up, two of half a cosine down
    for t, share in enumerate(rates, start=1):
        batch = order[32 * (t - 1) : 32 * t]
        at = jax.tree.unflatten(tree, [jnp.asarray(w, jnp.float32) for w in expected])
        grads = gradient(at, batch)
        for i, g in enumerate(np.asarray(g, np.float64) for g in jax.tree.leaves(grads)):
            m, first[i] = mean(first[i], g, t, beta, optimizer == "muon")
            second[i] = 0.999 * second[i] + 0.001 * g**2
            step = m / (np.sqrt(second[i] / (1 - 0.999**t)) + 1e-8)
            if optimizer == "muon" and g.ndim == 2:
                step = orthogonal(m)
            decay = optimizers.DEFAULTS[optimizer]["weight_decay"] * expected[i]
            expected[i] = expected[i] - LR * share * (step + decay)
        state, _ = next(states)
        assert_near(state.params, expected, 1e-4, 2e-5)


EMBEDDING = {"position_embedding"}  # has two axes, too


@pytest.mark.parametrize(("name", "more"), [("vit", EMBEDDING), ("cnn", set())])
def test_muon_takes_kernels_for_matrices_and_nothing_else(name, more):
    shape = dict(num_classes=10, image_shape=(8, 8, 1), dtype=jnp.float32)
    network = nnx.eval_shape(lambda: models.create(name, rngs=nnx.Rngs(0), **shape))
    params = nnx.state(network, nnx.Param)
    state = jax.eval_shape(optimizers.base("muon", 0.0, 0.9, 0.0, nesterov=True).init, params)
    found = {}
    for kind, inner in state.inner_states.items():
        paths = [path for path, _ in jax.tree.leaves_with_path(inner.inner_state[0].mu)]
        names = [[str(getattr(key, "key", "")) for key in path] for path in paths]
        found[kind] = {"/".join(path).strip("/").rsplit("/")[-1] for path in names}
    assert found == {"muon": {"kernel"}, "adam": {"bias", "scale"} | more}


def test_muon_takes_a_convolution_by_its_filters():
    kernel = np.random.default_rng(0).normal(size=(3, 3, 2, 5))
    tree = {"kernel": jnp.asarray(kernel, jnp.float32)}
    tx = optimizers.base("muon", 1.0, 0.95, 0.0, nesterov=True)
    updates: Any = tx.update(tree, tx.init(tree), tree)[0]
    expected = orthogonal(mean(0, kernel.reshape(18, 5), 1, 0.95, True)[0])
    found = updates["kernel"].reshape(18, 5)
    np.testing.assert_allclose(found, -expected, rtol=1e-3, atol=1e-4)


def weights_after(scaling, **values):
    """w after three steps."""
    state, tested = trained(made(parameterization=scaling, **SMALL, **values))
    return parameterization.weights(scaling, state.params), tested


@pytest.mark.parametrize("scaling", SCALINGS)
def test_sgd_is_the_same_in_w(scaling):
    """Momentum and weight decay included."""
    (found, tested), (expected, as_is) = (
        weights_after(s, method="sgd") for s in (scaling, "as is")
    )
    assert_near(found, expected, 1e-4, 1e-6)
    np.testing.assert_allclose(tested, as_is, rtol=1e-4)


@pytest.mark.parametrize("scaling", SCALINGS)
def test_with_eta_0_and_every_leaf_asam_is_the_same_in_w(scaling):
    values = dict(method="asam", adapt="all", eta=0.0, rho=1.0)
    (found, _), (expected, _) = (weights_after(s, **values) for s in (scaling, "as is"))
    assert_near(found, expected, 2e-3, 1e-6)


def test_sam_perturbs_by_s_in_w():
    """A step in theta is that of SAM in w with T_w = s; the plain one is another."""
    loop, dataset = loop_of(made(method="sam", rho=0.3, parameterization="layer", **SMALL))
    state = loop.init()
    s = parameterization.factors("layer", state.params)
    w = parameterization.weights("layer", state.params)
    order = np.asarray(loop.order(0))[:32]
    gradient = gradients(loop_of(made(**SMALL))[0], dataset, state)  # as a function of w

    @functools.partial(jax.jit, static_argnums=0)
    def stepped(operator):
        eps = asam_jax.perturbation(w, gradient(w, order), rho=0.3, operator=operator)
        grads = gradient(jax.tree.map(jnp.add, w, eps), order)
        return jax.tree.map(lambda p, g: p - 0.1 * (g + 0.1 * p), w, grads)

    state, _ = next(loop.epoch(state, 0, 0))
    found = parameterization.weights("layer", state.params)
    assert_near(found, stepped(lambda params: s), 1e-3, 1e-6)
    plain = stepped(asam_jax.identity())
    apart = jax.tree.map(lambda a, b: float(jnp.max(jnp.abs(a - b))), found, plain)
    assert max(jax.tree.leaves(apart)) > 1e-3


def test_factors_by_layer_and_by_node():
    params = loop_of(made(model="cnn", subset=128))[0].init().params
    for scaling in SCALINGS:
        factors = parameterization.factors(scaling, params)
        leaves = jax.tree.leaves_with_path(params)
        for (path, leaf), s in zip(leaves, jax.tree.leaves(factors), strict=True):
            if "norms" in jax.tree_util.keystr(path):
                assert s == 1
            elif scaling == "ntk":
                expected = (2 / (leaf.size / leaf.shape[-1])) ** 0.5 if leaf.ndim > 1 else 1.0
                np.testing.assert_allclose(s, expected, rtol=1e-6)
            elif scaling == "layer":
                assert float(s) in (4.0, 0.25)
            else:
                assert s.size == leaf.shape[-1] and 1 / 8 <= s.min() < 1 < s.max() <= 8
    by_layer = [float(s) for s in jax.tree.leaves(parameterization.factors("layer", params))]
    assert {4.0, 0.25} <= set(by_layer)
