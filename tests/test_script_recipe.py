"""`--recipe script` against a replay of what the authors' script does, step by step."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments.datasets import arrays
from experiments.training import step as stepping
from experiments.training.loop import Loop
from experiments.training.spec import spec_of
from tests import oracle
from tests.runs import after, made

IMAGES, EPOCHS, BATCH, LR, RHO = 20, 2, 8, 0.1, 0.5
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)


def problem_of(model):
    rng = np.random.default_rng(0)
    images = rng.integers(256, size=(IMAGES, 8, 8, 3), dtype=np.uint8)
    labels = rng.integers(10, size=IMAGES).astype(np.int32)
    dataset = arrays.from_arrays("cifar10", 10, images, labels, images[:4], labels[:4])
    values = dict(recipe="script", augment=False, batch_size=BATCH, epochs=EPOCHS)
    return dataset, made("cifar10", model=model, **values)


def perturbed(params, grads):
    """w + eps, eps in float64; Flax's biases are named so, and their T is 1."""
    leaves = jax.tree.leaves_with_path(params)
    names = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in leaves]
    names = [name.removesuffix("/value") for name in names]
    named, slopes = (
        dict(zip(names, map(np.asarray, jax.tree.leaves(tree)), strict=True))
        for tree in (params, grads)
    )
    eps = oracle.perturbation(named, slopes, rho=RHO, eta=0.0)
    moved = [np.float32(w + eps[name]) for name, w in named.items()]
    return jax.tree.unflatten(jax.tree.structure(params), moved)


def replayed(start, problem):
    dataset, config = problem
    spec = spec_of(config, dataset)
    params, rest = start
    graphdef = stepping._graphdef(spec.model, train=True)

    @jax.jit
    def both(params, rest, x, y):
        def loss(params):
            model = nnx.merge(graphdef, params, rest, copy=True)
            logs = jax.nn.log_softmax(model(x))
            of_label = jnp.take_along_axis(logs, y[:, None], axis=1)[:, 0]
            return -jnp.mean(0.9 * of_label + 0.1 * logs.mean(axis=1)), nnx.state(model)

        grads, after = jax.grad(loss, has_aux=True)(params)
        return grads, nnx.split(nnx.merge(graphdef, after), nnx.Param, ...)[2]

    x = (dataset.train_images / np.float32(255) - np.float32(MEAN)) / np.float32(STD)
    velocity = jax.tree.map(np.zeros_like, params)
    for epoch in range(EPOCHS):
        lr = LR * 0.5 * (1 + math.cos(math.pi * epoch / EPOCHS))
        order = np.asarray(stepping.epoch_order(spec, jnp.uint32(0), jnp.int32(epoch), IMAGES))
        assert sorted(order) == list(range(IMAGES))
        for first in range(0, IMAGES, BATCH):  # 8, 8 and 4 images
            picked = order[first : first + BATCH]
            batch = jnp.asarray(x[picked]), jnp.asarray(dataset.train_labels[picked])
            grads, rest = both(params, rest, *batch)
            grads, rest = both(perturbed(params, grads), rest, *batch)
            velocity = jax.tree.map(lambda v, g, w: 0.9 * v + g + 5e-4 * w, velocity, grads, params)
            params = jax.tree.map(lambda w, v, lr=lr: w - np.float32(lr) * v, params, velocity)
    return params, rest


# A convolution inside scan is slow on a CPU.
@pytest.mark.parametrize(("name", "model"), [("host", "cnn"), ("scan", "mlp")])
def test_equals_the_replay(name, model):
    problem = problem_of(model)
    loop = Loop(problem[1], problem[0], name)
    first = loop.init()
    start = jax.tree.map(np.array, (first.params, first.rest))
    state = after(loop, EPOCHS)
    params, rest = replayed(start, problem)
    assert state.step == 3 * EPOCHS
    for got, expected in ((state.params, params), (state.rest, rest)):
        for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
            if np.issubdtype(np.asarray(other).dtype, np.floating):
                shape = np.shape(other)
                np.testing.assert_allclose(np.reshape(one, shape), other, rtol=2e-3, atol=2e-4)
