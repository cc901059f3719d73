"""The loop over several devices against one device that sees the same cut batches."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import asam_jax
from experiments import models
from experiments.models.small import Cnn
from experiments.training import step as stepping
from experiments.training.spec import AXIS
from tests.cli import lines, ran
from tests.runs import after, assert_near, loop_of, made

DEVICES, BATCH, STEPS = 4, 32, 3


pytestmark = pytest.mark.usefixtures("flax_promotes")


@pytest.fixture
def small_cnn(monkeypatch):
    """One convolution with BatchNorm, under the name of the large one: no cache may mix them up."""

    def forget():
        stepping._graphdef.cache_clear()
        jax.clear_caches()

    forget()
    monkeypatch.setattr(Cnn, "widths", (4,))
    yield
    forget()


def batches(loop, dataset):
    """(step, device, image): what each device sees, images cut by device as they are stored."""
    share = len(dataset.train_labels) // DEVICES
    order = np.asarray(loop.order(0)).reshape(DEVICES, STEPS, BATCH // DEVICES)
    index = (order + share * np.arange(DEVICES)[:, None, None]).transpose(1, 0, 2)
    assert sorted(index.ravel()) == list(range(BATCH * STEPS))
    images = dataset.train_images[index].astype(np.float32)
    scaled = (images / 255 - np.float32(dataset.mean)) / np.float32(dataset.std)
    return scaled, dataset.train_labels[index]


def reference(made, spec, state, images, labels):
    """The same steps by one device: a stack of parameters, one for each group of images.

    Losses are differentiated after they are added, so that a BatchNorm over all groups needs no
    collective's gradient.
    """
    shape = dict(num_classes=10, image_shape=(8, 8, 1), dtype=jnp.float32)
    model = nnx.eval_shape(lambda: models.create(made.model, rngs=nnx.Rngs(0), **shape))
    model.set_attributes(norm_axis=spec.model.norm_axis, raise_if_not_found=False)
    graphdef = nnx.split(model, nnx.Param, ...)[0]

    def group_loss(params, rest, x, y):
        network = nnx.merge(graphdef, params, rest, copy=True)
        scores = network(x)
        loss = optax.softmax_cross_entropy_with_integer_labels(scores, y).mean()
        right = (scores.argmax(-1) == y).sum()
        return loss, (nnx.split(network, nnx.Param, ...)[2], right)

    def summed(stack, rest, x, y):
        losses, aux = jax.vmap(group_loss, (0, None, 0, 0), axis_name=AXIS)(stack, rest, x, y)
        return losses.sum(), (losses.mean(), *aux)

    def eps_of(params, grads):
        return asam_jax.perturbation(params, grads, rho=made.rho)

    @jax.jit
    def one(params, old_rest, x, y, lr):
        stack = jax.tree.map(lambda w: jnp.stack([w] * DEVICES), params)
        grads, (loss, rest, right) = jax.grad(summed, has_aux=True)(stack, old_rest, x, y)
        if made.method == "asam":
            if made.perturb == "all":
                grads = jax.tree.map(lambda g: jnp.stack([g.mean(0)] * DEVICES), grads)
            eps = jax.vmap(eps_of)(stack, grads)
            ascended = jax.tree.map(jnp.add, stack, eps)
            grads, _ = jax.grad(summed, has_aux=True)(ascended, old_rest, x, y)
        params = jax.tree.map(lambda w, g: w - lr * g.mean(0), params, grads)
        return params, jax.tree.map(lambda s: s.mean(0), rest), loss, right.sum()

    params, rest, loss_sum, right_sum = state.params, state.rest, 0.0, 0
    for step in range(STEPS):
        lr = 0.1 * 0.5 * (1 + np.cos(np.pi * step / STEPS))
        params, rest, loss, right = one(params, rest, images[step], labels[step], np.float32(lr))
        loss_sum, right_sum = loss_sum + loss, right_sum + right
    return params, rest, loss_sum, right_sum


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
def test_one_device_with_the_same_cut_batches(small_cnn, method, perturb, batch_norm):
    plain = dict(epochs=1, momentum=0.0, weight_decay=0.0, batch_size=BATCH, subset=BATCH * STEPS)
    plain |= dict(model="cnn", devices=DEVICES, seed=3)
    run = made(method=method, perturb=perturb, batch_norm=batch_norm, **plain)
    loop, dataset = loop_of(run)
    first = jax.device_get(loop.init())
    expected = reference(run, loop.spec, first, *batches(loop, dataset))
    state = after(loop)
    got = (state.params, state.rest, state.loss_sum, state.correct_sum)
    assert_near(got, expected, 1e-5, 1e-5)


SMALL = ["train", "--model", "mlp", "--subset", "256", "--epochs", "2", "--batch-size", "64"]


def test_the_command_line(tmp_path):
    values = ["--devices", 2, "--perturb", "device", "--workdir", tmp_path]
    assert "with a checkpoint" in ran(*SMALL, *values, "--time-limit", "0.01").stderr
    ran(*SMALL, *values)
    ran(*SMALL, *values[:-1], tmp_path / "whole")
    (record,), (expected,) = lines(tmp_path), lines(tmp_path / "whole")
    assert record["params_sha256"] == expected["params_sha256"]
    names = ("devices", "perturb", "batch_norm", "loop", "processes")
    assert [record[name] for name in names] == [2, "device", "averaged", "host", 1]
