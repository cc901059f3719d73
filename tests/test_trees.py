"""Parameter trees of every module library: the scales' rule on them, and a step."""

import dataclasses

import chex
import equinox as eqx
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx

import asam_jax

X = np.random.default_rng(0).normal(size=(4, 6, 6, 3)).astype(np.float32)
NEVER_SCALED = ("bias", "b", "offset")

pytestmark = pytest.mark.usefixtures("flax_promotes")


class Net(nnx.Module):
    def __init__(self, rngs):
        self.conv = nnx.Conv(3, 4, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.heads = nnx.List([nnx.Linear(4, 2, rngs=rngs)])

    def __call__(self, x):
        return self.heads[0](nnx.relu(self.norm(self.conv(x))).mean((1, 2)))


class LinenNet(linen.Module):
    @linen.compact
    def __call__(self, x):
        x = linen.relu(linen.LayerNorm()(linen.Conv(4, (3, 3))(x)))
        return linen.Dense(2)(x.mean((1, 2)))


def haiku_net(x):
    norm = hk.LayerNorm(-1, create_scale=True, create_offset=True)
    return hk.Linear(2)(jax.nn.relu(norm(hk.Conv2D(4, 3)(x))).mean((1, 2)))


@dataclasses.dataclass
class Pair:
    weight: jax.Array
    bias: jax.Array


jax.tree_util.register_dataclass(Pair, ["weight", "bias"], [])


def nnx_state():
    model = Net(nnx.Rngs(0))
    model.eval()
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)
    return params, lambda p: nnx.merge(graphdef, p, rest)(X)


def nnx_pure():
    params, apply = nnx_state()
    return nnx.to_pure_dict(params), lambda p: apply(nnx.State(p))


def linen_params():
    net = LinenNet()
    params = net.init(jax.random.key(0), X)
    return params, lambda p: net.apply(p, X)


def haiku_params():
    net = hk.without_apply_rng(hk.transform(haiku_net))
    return net.init(jax.random.key(0), X), lambda p: net.apply(p, X)


def equinox_model():
    """Its tree has None where what is no array was."""
    model = eqx.nn.MLP(3, 2, 4, 1, key=jax.random.key(0))
    params, static = eqx.partition(model, eqx.is_inexact_array)
    return params, lambda p: jax.vmap(eqx.combine(p, static))(X[:, 0, 0])


def dataclass_tree():
    return Pair(jnp.ones((3, 2)), jnp.zeros(2)), lambda p: X[:, 0, 0] @ p.weight + p.bias[None]


TREES = {
    f.__name__: f
    for f in (nnx_state, nnx_pure, linen_params, haiku_params, equinox_model, dataclass_tree)
}


def innermost_name(path):
    text = jax.tree_util.keystr(path).removesuffix(".value").replace("'", "").replace("]", "")
    return text.replace("[", ".").rsplit(".", 1)[-1]


@pytest.mark.parametrize("make", TREES.values(), ids=TREES)
def test_scales_and_a_step(make):
    params, apply = make()
    scales = asam_jax.elementwise(eta=0.5, adapt=asam_jax.not_bias)(params)
    assert jax.tree.structure(scales) == jax.tree.structure(params)
    names = set()
    leaves = jax.tree_util.tree_leaves_with_path(params)
    for (path, w), t in zip(leaves, jax.tree.leaves(scales), strict=True):
        names.add(innermost_name(path))
        if innermost_name(path) in NEVER_SCALED:
            np.testing.assert_array_equal(t, np.ones((1,) * w.ndim))
        else:
            np.testing.assert_allclose(t, np.abs(w) + 0.5, rtol=1e-6)
    assert names & set(NEVER_SCALED) and names - set(NEVER_SCALED)

    loss = lambda p: jnp.mean(jnp.square(apply(p) - 1.0))  # noqa: E731
    operator, grad_fn = asam_jax.filterwise(0.01), jax.jit(jax.grad(loss))
    eps = asam_jax.perturbation(params, grad_fn(params), rho=0.1, operator=operator)
    expected = grad_fn(jax.tree.map(jnp.add, params, eps))
    value, got = jax.jit(asam_jax.value_and_grad(loss, rho=0.1, operator=operator))(params)
    chex.assert_trees_all_close(got, expected, rtol=1e-5, atol=1e-7)
    assert float(value) == pytest.approx(float(loss(params)), rel=1e-5)
    # eps is on the boundary of the region
    ratio = jax.tree.map(lambda e, t: jnp.sum(jnp.square(e / t)), eps, operator(params))
    assert sum(map(float, jax.tree.leaves(ratio))) == pytest.approx(0.01, rel=1e-4)


@pytest.mark.parametrize("empty", [{}, (), None, {"a": {}, "b": None}])
def test_empty_trees(empty):
    assert asam_jax.perturbation(empty, empty, rho=0.5) == empty
    if empty is not None:  # which means "no parameters given" to an optax update
        tx = asam_jax.asam(optax.sgd(0.1))
        updates, _ = tx.update(empty, tx.init(empty), empty, grad_fn=lambda p: p)
        assert updates == empty
        for descent in (asam_jax.gsam_descent(0.5), asam_jax.looksam_descent(0.5)):
            tx = asam_jax.sharpness_aware(0.5, descent=descent)
            assert tx.update(empty, tx.init(empty), empty, grad_fn=lambda p: p)[0] == empty


@pytest.mark.parametrize("make", [lambda a: a, lambda a: (a, [a]), lambda a: (a[0], a[:0])])
def test_bare_arrays_tuples_scalars_and_empty_leaves(make):
    params = make(jnp.array([3.0, 4.0]))
    eps = asam_jax.perturbation(params, params, rho=0.5, operator=asam_jax.identity())
    chex.assert_trees_all_equal_shapes_and_dtypes(eps, params)
    total = sum(float(jnp.sum(e**2)) for e in jax.tree.leaves(eps))
    assert total == pytest.approx(0.25, rel=1e-5)


def test_an_operator_is_any_function_of_the_parameters():
    params = {"w": jnp.array([3.0, 4.0]), "v": jnp.array([[1.0]])}
    layerwise = lambda p: jax.tree.map(lambda w: jnp.sqrt(jnp.sum(w**2)), p)  # noqa: E731
    eps = asam_jax.perturbation(params, params, rho=1.0, operator=layerwise)
    length = np.sqrt(25 * 25 + 1)
    np.testing.assert_allclose(eps["w"], 25 * np.array([3.0, 4.0]) / length, rtol=1e-6)
    np.testing.assert_allclose(eps["v"], 1 / length, rtol=1e-6)
