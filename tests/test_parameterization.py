"""w = s * theta: the same SGD in w, and SAM within the region T = s of w."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import asam_jax
from experiments.training import parameterization
from experiments.training import step as stepping
from tests.runs import assert_near, loop_of, made, trained

pytestmark = pytest.mark.usefixtures("flax_promotes")
SCALINGS = ("ntk", "layer", "node")
SMALL = dict(model="mlp", subset=96, batch_size=32, epochs=1, weight_decay=0.1)


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
    x = (dataset.train_images[order] / 255 - np.asarray(dataset.mean)) / dataset.std
    x, labels = jnp.asarray(x, jnp.float32), jnp.asarray(dataset.train_labels[order])
    graphdef = stepping._graphdef(loop.spec.model, train=True)

    def loss_fn(w):
        logs = jax.nn.log_softmax(nnx.merge(graphdef, w, state.rest, copy=True)(x))
        return -jnp.mean(jnp.take_along_axis(logs, labels[:, None], axis=1))

    def stepped(operator):
        grads = asam_jax.value_and_grad(loss_fn, rho=0.3, operator=operator)(w)[1]
        return jax.tree.map(lambda p, g: p - 0.1 * (g + 0.1 * p), w, grads)

    state, _ = next(loop.epoch(state, 0, 0))
    found = parameterization.weights("layer", state.params)
    expected = jax.jit(stepped, static_argnums=0)(lambda params: s)
    assert_near(found, expected, 1e-3, 1e-6)
    plain = jax.jit(stepped, static_argnums=0)(asam_jax.identity())
    apart = jax.tree.map(lambda a, b: float(jnp.max(jnp.abs(a - b))), found, plain)
    assert max(jax.tree.leaves(apart)) > 1e-3


def test_factors_by_layer_and_by_node():
    params = loop_of(made(model="cnn", subset=128))[0].init().params
    for scaling in SCALINGS:
        factors = parameterization.factors(scaling, params)
        for (path, leaf), s in zip(
            jax.tree.leaves_with_path(params), jax.tree.leaves(factors), strict=True
        ):
            name = jax.tree_util.keystr(path)
            if "norms" in name:
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
