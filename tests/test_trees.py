"""Parameter trees of every module library, and the leaf rules on them."""

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
    model = eqx.nn.MLP(3, 2, 4, 1, key=jax.random.key(0))
    params, static = eqx.partition(model, eqx.is_inexact_array)
    return params, lambda p: jax.vmap(eqx.combine(p, static))(X[:, 0, 0])


def dataclass_tree():
    return Pair(jnp.ones((3, 2)), jnp.zeros(2)), lambda p: X[:, 0, 0] @ p.weight + p.bias[None]


TREES = {
    f.__name__: f
    for f in (nnx_state, nnx_pure, linen_params, haiku_params, equinox_model, dataclass_tree)
}


@pytest.fixture(params=TREES)
def tree(request):
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield TREES[request.param]()


def innermost_name(path):
    text = jax.tree_util.keystr(path).removesuffix(".value").replace("'", "").replace("]", "")
    return text.replace("[", ".").rsplit(".", 1)[-1]


def test_scales_follow_the_authors_rule(tree):
    params, _ = tree
    scales = asam_jax.elementwise(eta=0.5)(params)
    assert jax.tree.structure(scales) == jax.tree.structure(params)
    names = set()
    for (path, w), t in zip(
        jax.tree_util.tree_leaves_with_path(params), jax.tree.leaves(scales), strict=True
    ):
        names.add(innermost_name(path))
        if innermost_name(path) in NEVER_SCALED:
            np.testing.assert_array_equal(t, np.ones((1,) * w.ndim))
        else:
            np.testing.assert_allclose(t, np.abs(w) + 0.5, rtol=1e-6)
    assert names & set(NEVER_SCALED) and names - set(NEVER_SCALED)


def test_a_step_through_the_link(tree):
    params, apply = tree

    def loss(p):
        return jnp.mean(jnp.square(apply(p) - 1.0))

    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        for operator in (asam_jax.elementwise(), asam_jax.filterwise()):
            grads = jax.grad(loss)(params)
            eps = asam_jax.perturbation(params, grads, rho=0.1, operator=operator)
            expected = jax.grad(loss)(jax.tree.map(jnp.add, params, eps))
            tx = asam_jax.sharpness_aware(0.1, operator=operator)
            updates, _ = tx.update(grads, tx.init(params), params, grad_fn=jax.grad(loss))
            chex.assert_trees_all_close(updates, expected, rtol=1e-5)
            value, got = asam_jax.value_and_grad(loss, rho=0.1, operator=operator)(params)
            chex.assert_trees_all_close(got, expected, rtol=1e-5)
            assert float(value) == pytest.approx(float(loss(params)))
            # eps is on the boundary of the region
            ratio = jax.tree.map(lambda e, t: jnp.sum(jnp.square(e / t)), eps, operator(params))
            assert sum(map(float, jax.tree.leaves(ratio))) == pytest.approx(0.01, rel=1e-4)


def test_none_leaves_and_static_fields_stay():
    params, _ = equinox_model()
    assert any(leaf is None for leaf in jax.tree.leaves(params, is_leaf=lambda x: x is None))
    eps = asam_jax.perturbation(params, params, rho=0.1)
    assert jax.tree.structure(eps) == jax.tree.structure(params)


@pytest.mark.parametrize("empty", [{}, (), None, {"a": {}, "b": None}])
def test_empty_trees(empty):
    assert asam_jax.perturbation(empty, empty, rho=0.5) == empty
    if empty is None:  # means "no parameters given" to an optax update
        return
    tx = asam_jax.asam(optax.sgd(0.1))
    updates, _ = tx.update(empty, tx.init(empty), empty, grad_fn=lambda p: p)
    assert updates == empty


@pytest.mark.parametrize("make", [lambda a: a, lambda a: (a, [a]), lambda a: (a[0], a[:0])])
def test_bare_arrays_tuples_scalars_and_empty_leaves(make):
    params = make(jnp.array([3.0, 4.0]))
    eps = asam_jax.perturbation(params, params, rho=0.5, operator=asam_jax.identity())
    chex.assert_trees_all_equal_shapes_and_dtypes(eps, params)
    total = sum(float(jnp.sum(e**2)) for e in jax.tree.leaves(eps))
    assert total == pytest.approx(0.25, rel=1e-5)


def test_integer_and_complex_leaves_are_refused_by_name():
    for bad in (jnp.array([1, 2]), jnp.array([1 + 2j]), jnp.array([True])):
        params = {"w": jnp.ones(2), "step": bad}
        advice = "eqx.partition" if bad.dtype.kind != "c" else "two real leaves.*jax.lax.complex"
        match = rf"params\['step'\] has dtype .*only real floating.*{advice}"
        with pytest.raises(TypeError, match=match):
            asam_jax.perturbation(params, params, rho=0.5)
        with pytest.raises(TypeError, match=match):
            asam_jax.value_and_grad(lambda p: jnp.sum(p["w"]), rho=0.5)(params)


def test_a_whole_model_is_refused_by_the_leaf_that_is_no_array():
    model = eqx.nn.MLP(3, 1, 4, 1, key=jax.random.key(0))
    loss = lambda m, x: jnp.mean(jax.vmap(m)(x) ** 2)  # noqa: E731
    tx, x = asam_jax.asam(optax.sgd(0.1)), X[:, 0, 0]
    for call in (
        lambda: asam_jax.sharpness(loss, model, x, rho=0.1),
        lambda: asam_jax.value_and_grad(loss, rho=0.1)(model, x),
        lambda: tx.update(model, tx.init(model), model, grad_fn=lambda m: m),
    ):
        with pytest.raises(TypeError, match=r"params\.activation is .*no array.*eqx\.partition"):
            call()


def test_complex_parameters_are_two_leaves_and_a_pair_of_optax_is_refused():
    """eps of (real, imag) is that of two real vectors; T = 1 for a complex bias, too."""
    z = {"w": jnp.array([3 + 4j]), "bias": jnp.array([1 - 2j])}
    tx = optax.contrib.split_real_and_imaginary(asam_jax.asam(optax.sgd(0.1)))
    with pytest.raises(TypeError, match=r"params\['bias'\] is complex.*two real leaves"):
        tx.init(z)
    two = jax.tree.map(lambda z: {"real": z.real, "imag": z.imag}, z)
    scales = asam_jax.elementwise(0.5)(two)
    assert scales["w"] == {"real": jnp.array([3.5]), "imag": jnp.array([4.5])}
    assert scales["bias"] == {"real": jnp.ones(1), "imag": jnp.ones(1)}


def test_filter_axes_keep_scales_small():
    params = {
        "conv": jnp.ones((3, 3, 8, 16)),
        "dense": jnp.ones((8, 16)),
        "conv1d": jnp.ones((5, 4, 6)),
    }
    flax = asam_jax.filterwise()(params)
    assert jax.tree.map(jnp.shape, flax) == {
        "conv": (1, 1, 1, 16),
        "dense": (8, 16),
        "conv1d": (1, 1, 6),
    }
    torch = asam_jax.filterwise(filter_axes=asam_jax.torch_filter_axes)(params)
    assert jax.tree.map(jnp.shape, torch) == {
        "conv": (3, 1, 1, 1),
        "dense": (8, 16),
        "conv1d": (5, 1, 1),
    }


def test_an_operator_is_any_function_of_the_parameters():
    params = {"w": jnp.array([3.0, 4.0]), "v": jnp.array([[1.0]])}
    layerwise = lambda p: jax.tree.map(lambda w: jnp.sqrt(jnp.sum(w**2)), p)  # noqa: E731
    eps = asam_jax.perturbation(params, params, rho=1.0, operator=layerwise)
    length = np.sqrt(25 * 25 + 1)
    np.testing.assert_allclose(eps["w"], 25 * np.array([3.0, 4.0]) / length, rtol=1e-6)
    np.testing.assert_allclose(eps["v"], 1 / length, rtol=1e-6)


def test_nnx_optimizer_forwards_grad_fn():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        model = Net(nnx.Rngs(0))
        model.eval()
        graphdef, params, rest = nnx.split(model, nnx.Param, ...)

        def loss(p):
            return jnp.mean(jnp.square(nnx.merge(graphdef, p, rest)(X) - 1.0))

        optimizer = nnx.Optimizer(model, asam_jax.asam(optax.sgd(0.1), 0.5), wrt=nnx.Param)
        expected = asam_jax.value_and_grad(loss, rho=0.5)(params)[1]
        stepped = jax.tree.map(lambda w, g: w - 0.1 * g, params, expected)
        optimizer.update(model, jax.grad(loss)(params), grad_fn=jax.grad(loss))
        chex.assert_trees_all_close(
            nnx.to_pure_dict(nnx.state(model, nnx.Param)), nnx.to_pure_dict(stepped), rtol=1e-5
        )
