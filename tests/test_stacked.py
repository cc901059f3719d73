"""Layers stacked in one leaf: scales as if each were apart, and what is seen of a stack unsaid."""

import functools

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import asam_jax

SIZES = (1.0, 10.0, 0.1)


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
MAKE = {"elementwise": asam_jax.elementwise, "filterwise": asam_jax.filterwise}


def stacked(axis):
    return jax.tree.map(lambda *leaves: np.stack(leaves, axis), *LAYERS)


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("make", MAKE)
def test_a_stack_has_the_bits_of_its_layers(make, jit):
    wrap = jax.jit if jit else lambda operator: operator
    together = wrap(MAKE[make](layer_axes=(0,)))(stacked(0))
    apart = [wrap(MAKE[make]())(params) for params in LAYERS]
    for t, w, *own in zip(*map(jax.tree.leaves, (together, stacked(0), *apart)), strict=True):
        assert t.ndim == w.ndim
        for i, scale in enumerate(own):
            np.testing.assert_array_equal(t[min(i, len(t) - 1)], scale)


def test_any_axes_may_number_layers():
    """As nn.scan's variable_axes may say, and nested scans."""
    kernels = np.random.default_rng(0).normal(size=(2, 3, 3, 4, 5, 6)).astype(np.float32)
    norms = np.sqrt(np.sum(np.square(kernels, dtype=np.float64), axis=(2, 3, 4)))
    moved = np.moveaxis(kernels, 1, -2)  # layers, 3, 4, 5, layers, 6
    for axes in ((0, -2), (4, 0), lambda path, leaf: (0, 4)):
        scale = asam_jax.filterwise(0.0, layer_axes=axes)({"kernel": moved})["kernel"]
        assert scale.shape == (2, 1, 1, 1, 3, 6)
        np.testing.assert_allclose(scale[:, 0, 0, 0], norms, rtol=1e-6)


def test_a_rule_for_some_leaves():
    params = {"blocks": LAYERS[0]["conv"], "head": LAYERS[0]["conv"]}
    params = {**params, "blocks": jax.tree.map(lambda w: np.stack([w, 2 * w]), params["blocks"])}
    seen = []

    def axes(path, leaf):
        return (0,) if path[0].key == "blocks" else None

    def adapt(path, leaf):
        seen.append((path[0].key, leaf.shape, leaf.dtype))
        return leaf.ndim > 1

    scales = asam_jax.filterwise(0.0, adapt=adapt, layer_axes=axes)(params)
    np.testing.assert_array_equal(scales["blocks"]["kernel"][0], scales["head"]["kernel"])
    assert scales["blocks"]["bias"].shape == (1, 1)
    assert seen[:2] == [("blocks", (16,), np.float32), ("blocks", (3, 3, 8, 16), np.float32)]


def test_layer_stack_of_haiku_says_so_by_its_names():
    def net(x):
        both = lambda x: hk.Linear(4)(hk.Conv2D(4, 3)(x))  # noqa: E731
        twice = lambda x: hk.experimental.layer_stack(2)(both)(x)  # noqa: E731
        return hk.experimental.layer_stack(3)(twice)(x)

    shapes = jax.eval_shape(hk.transform(net).init, jax.random.key(0), jnp.ones((1, 4, 4, 4)))
    params = jax.tree.map(lambda s: 2 * jnp.ones(s.shape), shapes)
    scales = asam_jax.filterwise(0.0)(params)
    for name, module in params.items():
        conv = "conv" in name
        assert module["b"].shape[:2] == (3, 2)
        assert scales[name]["b"].size == 1
        expected = (3, 2, 1, 1, 1, 4) if conv else (3, 2, 4, 4)
        np.testing.assert_allclose(scales[name]["w"], np.full(expected, 12.0 if conv else 2.0))


@pytest.mark.parametrize(
    ("axes", "error", "text"),
    [
        (1, TypeError, r"^layer_axes must be a tuple of axes or a rule .*got 1; \(0,\) says"),
        (None, TypeError, "^layer_axes must be a tuple"),
        ((3,), ValueError, r"^layer_axes gives \(3,\) at params\['kernel'\] of shape \(4, 5\)"),
        (lambda path, leaf: "0", ValueError, "^layer_axes gives '0' at"),
    ],
)
def test_axes_that_are_none(axes, error, text):
    with pytest.raises(error, match=text):
        asam_jax.elementwise(layer_axes=axes)({"kernel": jnp.ones((4, 5))})
    if error is ValueError:
        with pytest.raises(ValueError, match=text.replace("layer_axes", "filter_axes")):
            rule = axes if callable(axes) else lambda path, leaf: axes
            asam_jax.filterwise(filter_axes=rule)({"kernel": jnp.ones((4, 5))})


WRONG = {
    "stack of convolutions": {"kernel": (3, 3, 3, 4, 8), "bias": (3, 8)},
    "stack of dense layers": {"kernel": (3, 4, 8), "bias": (3, 8)},
    "transposed": {"w": (3, 3, 8, 4), "b": (8,)},
    "heads": {"kernel": (8, 2, 3), "bias": (2, 3)},
    "several outputs for each input": {"kernel": (3, 3, 4, 2), "bias": (8,)},
    "layout of Equinox": {"weight": (8, 4, 3, 3), "bias": (8, 1, 1)},
}
RIGHT = {
    "convolution": {"kernel": (3, 3, 4, 8), "bias": (8,)},
    "channels first": {"w": (3, 3, 4, 8), "b": (8, 1, 1)},
    "grouped": {"kernel": (3, 3, 1, 8), "bias": (8,)},
    "one bias": {"kernel": (3, 4, 8), "bias": (1,)},
    "a bias for each place": {"kernel": (3, 3, 4, 8), "bias": (16, 16, 8)},
    "LoRA": {"w": (3, 3, 4, 3), "a": (4, 3), "b": (3, 3)},
}


def ones(shapes):
    return {"up": {name: np.ones(shape, np.float32) for name, shape in shapes.items()}}


@pytest.mark.parametrize("name", WRONG)
def test_a_bias_that_does_not_fit_the_filters_is_named(name):
    params = ones(WRONG[name])
    with pytest.warns(
        UserWarning, match=r"filterwise takes params\['up'\]\['\w+'\] of .*layer_axes"
    ):
        jax.eval_shape(asam_jax.filterwise(), params)
    own = lambda path, leaf: asam_jax.flax_filter_axes(path, leaf)  # noqa: E731
    jax.eval_shape(asam_jax.filterwise(filter_axes=own), params)  # who gives a rule has decided


@pytest.mark.parametrize("name", RIGHT)
def test_no_other_bias_is(name):
    jax.eval_shape(asam_jax.filterwise(), ones(RIGHT[name]))


def test_right_axes_say_nothing():
    stack = ones(WRONG["stack of convolutions"])
    jax.eval_shape(asam_jax.filterwise(layer_axes=(0,)), stack)
    torch = functools.partial(asam_jax.filterwise, filter_axes=asam_jax.torch_filter_axes)
    jax.eval_shape(torch(), ones(WRONG["layout of Equinox"]))
    stack = ones({"weight": (2, 8, 4, 3), "bias": (2, 8, 1)})
    jax.eval_shape(torch(layer_axes=(0,)), stack)
