"""Curvature in the paper's coordinates, against dense matrices, double reverse and noise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import asam_jax
from experiments.datasets import arrays
from experiments.figures import curvature, curvature_measures
from experiments.training import step as stepping
from experiments.training.spec import model_spec
from tests.runs import made

RNG = np.random.default_rng(0)
ROOT = RNG.normal(size=(30, 30))
MATRIX = (ROOT + ROOT.T).astype(np.float32)


def test_eigenvalue_and_trace_from_products_alone():
    found = curvature_measures.largest_eigenvalue(lambda v: MATRIX @ v.reshape(-1), 30)
    assert found == pytest.approx(np.linalg.eigvalsh(MATRIX)[-1], rel=1e-3)
    diagonal = np.arange(30, dtype=np.float32)
    assert curvature_measures.trace(lambda v: diagonal * v, 30) == pytest.approx(diagonal.sum())


@pytest.mark.usefixtures("flax_promotes")
def test_a_product_is_the_scaled_hessians():
    dataset = arrays.load("digits")
    spec = model_spec(made(method="sgd", model="mlp"), dataset)
    state = jax.jit(stepping.init, static_argnums=0)(spec, jnp.uint32(0))
    images, labels = dataset.train_images[:8], dataset.train_labels[:8]
    flat, unravel = ravel_pytree(state.params)
    scales = asam_jax.elementwise()(state.params)
    direction = RNG.normal(size=flat.size).astype(np.float32)
    moved = jax.tree.map(jnp.multiply, scales, unravel(jnp.asarray(direction)))

    @jax.jit
    def expected():
        """Reverse over reverse: the gradient of <g, T v>, times T."""

        def loss(w):
            return stepping.evaluate(spec, w, state.rest, images, labels)[0] / 8

        def along(w):
            return sum(map(jnp.vdot, jax.tree.leaves(jax.grad(loss)(w)), jax.tree.leaves(moved)))

        return ravel_pytree(jax.tree.map(jnp.multiply, scales, jax.grad(along)(state.params)))[0]

    got = curvature_measures._apply(
        spec, "adaptive", state.params, state.rest, images, labels, jnp.asarray(direction)
    )
    size = float(jnp.linalg.norm(expected()))
    assert size > 0
    np.testing.assert_allclose(got, expected(), atol=1e-4 * size)


def line(number, **values):
    run = {"dataset": "digits", "model": "mlp", "epochs": 20, "weight_decay": 1e-4}
    return {"run_id": "a", "epoch": number, "images": 8, "gap": float(number), "run": run, **values}


def test_the_table_holds_the_correlations():
    lines = [
        line(n, **{**dict.fromkeys(curvature.MEASURES, 2.0 * n), "trace_plain": -(n**2.0)})
        for n in range(1, 6)
    ]
    expected = np.corrcoef([1, 4, 9, 16, 25], [1, 2, 3, 4, 5])[0, 1]
    assert curvature.correlations(lines, "trace_plain") == pytest.approx((-expected, -1.0))
    text = curvature.sentences(lines, [])
    assert "n = 5 networks" in text and f"{-expected:.3f}" in text
