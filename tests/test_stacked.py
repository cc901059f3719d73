"""layer_axes: layers stacked in one leaf are scaled as if each were apart."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import asam_jax

SIZES = (1.0, 10.0, 0.1)
MAKE = {"elementwise": asam_jax.elementwise, "filterwise": asam_jax.filterwise}


def layer(size, seed=0):
    rng = np.random.default_rng(seed)
    draw = lambda *shape: (size * rng.normal(size=shape)).astype(np.float32)  # noqa: E731
    return {
        "conv": {"kernel": draw(3, 3, 8, 16), "bias": draw(16)},
        "fc": {"kernel": draw(16, 4), "b": draw(4)},
        "lora": {"a": draw(16, 2), "b": draw(2, 4)},
        "pos_embedding": draw(1, 9, 4),
    }


LAYERS = [layer(size, seed) for seed, size in enumerate(SIZES)]


def stacked(axis):
    return jax.tree.map(lambda *leaves: np.stack(leaves, axis), *LAYERS)


@pytest.mark.parametrize("make", MAKE)
def test_a_stack_has_the_scales_of_its_layers(make):
    together = jax.jit(MAKE[make](layer_axes=(0,)))(stacked(0))
    scales = jax.jit(MAKE[make]())
    apart = [scales(params) for params in LAYERS]
    for t, w, *own in zip(*map(jax.tree.leaves, (together, stacked(0), *apart)), strict=True):
        assert t.ndim == w.ndim
        for i, scale in enumerate(own):
            np.testing.assert_allclose(t[min(i, len(t) - 1)], scale, rtol=1e-6)


def test_any_axes_may_number_layers():
    """As nn.scan's variable_axes may say, and nested scans."""
    kernels = np.random.default_rng(0).normal(size=(2, 3, 3, 4, 5, 6)).astype(np.float32)
    norms = np.sqrt(np.sum(np.square(kernels, dtype=np.float64), axis=(2, 3, 4)))
    moved = np.moveaxis(kernels, 1, -2)  # layers, 3, 4, 5, layers, 6
    for axes in ((0, -2), (4, 0), lambda path, leaf: (0, 4)):
        scale = asam_jax.filterwise(0.0, layer_axes=axes)({"conv": {"kernel": moved}})
        scale = scale["conv"]["kernel"]
        assert scale.shape == (2, 1, 1, 1, 3, 6)
        np.testing.assert_allclose(scale[:, 0, 0, 0], norms, rtol=1e-6)


def test_a_rule_for_some_leaves():
    """The other rules see a layer's leaf, without the axes that number layers."""
    params = {"blocks": LAYERS[0]["conv"], "head": LAYERS[0]["conv"]}
    params = {**params, "blocks": jax.tree.map(lambda w: np.stack([w, 2 * w]), params["blocks"])}
    seen = []

    def axes(path, leaf):
        return (0,) if path[0].key == "blocks" else ()

    def adapt(path, leaf):
        seen.append((path[0].key, leaf.shape, leaf.dtype))
        return leaf.ndim > 1

    scales = asam_jax.filterwise(0.0, adapt=adapt, layer_axes=axes)(params)
    np.testing.assert_allclose(scales["blocks"]["kernel"][0], scales["head"]["kernel"], rtol=1e-6)
    assert scales["blocks"]["bias"].shape == (1, 1)
    assert seen[:2] == [("blocks", (16,), np.float32), ("blocks", (3, 3, 8, 16), np.float32)]


@pytest.mark.parametrize("argument", ["layer_axes", "filter_axes"])
def test_axes_that_a_leaf_has_not(argument):
    operator = asam_jax.filterwise(**{argument: lambda path, leaf: (3,)})
    with pytest.raises(ValueError, match=rf"^{argument} gives .* at params\['kernel'\]"):
        operator({"kernel": jnp.ones((4, 5))})
