"""Training over several devices against a replay on one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments import models
from experiments.models.plain import Cnn
from experiments.training.spec import AXIS
from tests import oracle
from tests.runs import after, assert_near, loop_of, made, narrow

pytestmark = pytest.mark.usefixtures("flax_promotes", "small_cnn")


@pytest.fixture(scope="module")
def small_cnn():
    """One convolution with BatchNorm."""
    with narrow(Cnn, 4):
        yield


def perturbed(run, params, grads):
    """w + eps, eps in float64; Flax's biases are named so, and their T is 1."""
    leaves = jax.tree.leaves_with_path(params)
    names = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in leaves]
    names = [name.removesuffix("/value") for name in names]
    w, g = (
        dict(zip(names, map(np.asarray, jax.tree.leaves(tree)), strict=True))
        for tree in (params, grads)
    )
    eps = oracle.perturbation(w, g, rho=run.rho, eta=run.eta, leaves=run.adapt)
    return jax.tree.unflatten(jax.tree.structure(params), [np.float32(w[n] + eps[n]) for n in w])


def replay(run, loop, state, steps):
    """Steps (images, labels, rate) by one device: a stack of parameters, one for each group.

    Losses are differentiated after they are added, so that a BatchNorm over all groups needs no
    collective's gradient.
    """
    groups, shape = steps[0][0].shape[0], steps[0][0].shape[2:]
    how = dict(num_classes=10, image_shape=shape, dtype=jnp.float32)
    model = nnx.eval_shape(lambda: models.create(run.model, rngs=nnx.Rngs(0), **how))
    model.set_attributes(norm_axis=loop.spec.model.norm_axis, raise_if_not_found=False)
    graphdef = nnx.split(model, nnx.Param, ...)[0]

    def group_loss(params, rest, x, y):
        network = nnx.merge(graphdef, params, rest, copy=True)
        scores = network(x)
        logs = jax.nn.log_softmax(scores)
        of_label = jnp.take_along_axis(logs, y[:, None], axis=1)[:, 0]
        share = run.label_smoothing
        loss = -jnp.mean((1 - share) * of_label + share * logs.mean(axis=1))
        right = (scores.argmax(-1) == y).sum()
        return loss, (nnx.split(network, nnx.Param, ...)[2], right)

    @jax.jit
    def gradient(stack, rest, x, y):
        def summed(stack):
            losses, aux = jax.vmap(group_loss, (0, None, 0, 0), axis_name=AXIS)(stack, rest, x, y)
            return losses.sum(), (losses.mean(), *aux)

        grads, (loss, rest, right) = jax.grad(summed, has_aux=True)(stack)
        return grads, jax.tree.map(lambda s: s.mean(0), rest), loss, right.sum()

    params, rest, loss_sum, right_sum = state.params, state.rest, 0.0, 0
    velocity = jax.tree.map(np.zeros_like, params)
    for x, y, lr in steps:
        grads, new, loss, right = gradient(repeated(params, groups), rest, x, y)
        if run.method == "asam":
            if run.perturb == "all":
                grads = repeated(jax.tree.map(lambda g: g.mean(0), grads), groups)
            own = [jax.tree.map(lambda g, i=i: g[i], grads) for i in range(groups)]
            moved = [perturbed(run, params, g) for g in own]
            stack = jax.tree.map(lambda *leaves: np.stack(leaves), *moved)
            grads = gradient(stack, rest, x, y)[0]
        decay, mass = run.weight_decay, run.momentum
        change = lambda v, g, w: mass * v + g.mean(0) + decay * w  # noqa: B023, E731
        velocity = jax.tree.map(change, velocity, grads, params)
        params = jax.tree.map(lambda w, v, lr=lr: w - np.float32(lr) * v, params, velocity)
        rest, loss_sum, right_sum = new, loss_sum + loss, right_sum + right
    return params, rest, loss_sum, right_sum


def repeated(tree, groups):
    return jax.tree.map(lambda leaf: np.stack([leaf] * groups), tree)


@pytest.mark.parametrize(
    ("method", "perturb", "batch_norm"),
    [
        ("sgd", "all", "device"),
        ("asam", "all", "averaged"),
        ("asam", "all", "device"),
        ("asam", "device", "averaged"),
        ("asam", "device", "device"),
    ],
)
def test_several_devices_do_what_one_does_with_the_same_cut_batches(method, perturb, batch_norm):
    """(step, device, image): images are cut by device as they are stored."""
    devices, steps, batch = 4, 3, 32
    plain = dict(epochs=1, momentum=0.0, weight_decay=0.0, batch_size=batch, subset=batch * steps)
    plain |= dict(model="cnn", devices=devices, seed=3)
    run = made(method=method, perturb=perturb, batch_norm=batch_norm, **plain)
    loop, dataset = loop_of(run)
    order = np.asarray(loop.order(0)).reshape(devices, steps, batch // devices)
    share = len(dataset.train_labels) // devices
    index = (order + share * np.arange(devices)[:, None, None]).transpose(1, 0, 2)
    assert sorted(index.ravel()) == list(range(batch * steps))
    x = dataset.train_images[index].astype(np.float32) / 255
    x = (x - np.float32(dataset.mean)) / np.float32(dataset.std)
    rates = 0.1 * 0.5 * (1 + np.cos(np.pi * np.arange(steps) / steps))
    batches = list(zip(x, dataset.train_labels[index], rates, strict=True))
    expected = replay(run, loop, jax.device_get(loop.init()), batches)
    state = after(loop)
    got = (state.params, state.rest, state.loss_sum, state.correct_sum)
    assert_near(got, expected, 1e-5, 1e-5)
