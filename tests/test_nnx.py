"""asam_jax.nnx: two passes written by hand, and what the first one does to the module."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import many
import numpy as np
import optax
import oracle
import pytest
from flax import nnx
from jax.sharding import PartitionSpec as P

import asam_jax
import asam_jax.nnx

pytestmark = pytest.mark.usefixtures("flax_promotes")
X = jax.random.normal(jax.random.key(0), (32, 8)) + 1
Y = jnp.ones((32, 1))
AUTHORS = asam_jax.elementwise(0.01, adapt=asam_jax.not_bias)  # as the right values have it


class Net(nnx.Module):
    def __init__(self, rngs, axis_name=None, rate=0.5):
        self.first, self.last = nnx.Linear(8, 16, rngs=rngs), nnx.Linear(16, 1, rngs=rngs)
        self.norm = nnx.BatchNorm(16, momentum=0.5, rngs=rngs, axis_name=axis_name)
        self.drop = nnx.Dropout(rate, rngs=rngs)

    def __call__(self, x):
        return self.last(self.drop(nnx.relu(self.norm(self.first(x)))))


def loss(model, x=X, y=Y):
    return jnp.mean((model(x) - y) ** 2)


def leaves(tree):
    """A flat dict from names such as "first/kernel" to arrays."""
    flat = nnx.to_flat_state(nnx.as_pure(tree))
    return {"/".join(map(str, path)): np.asarray(leaf) for path, leaf in flat}


def close(got, expected, tolerance=1e-5):
    """Relative to the largest entry of all: the gradient of a bias below BatchNorm is 0."""
    assert got.keys() == expected.keys()
    largest = max(np.abs(leaf).max() for leaf in expected.values())
    for name, leaf in expected.items():
        np.testing.assert_allclose(got[name], leaf, rtol=0, atol=tolerance * largest, err_msg=name)


def state_of(model):
    rest = nnx.state(model, nnx.Not(nnx.Any(nnx.Param, nnx.RngKey)))
    return leaves(rest)


def by_hand(model, loss=loss, wrt=nnx.Param, rho=0.5, **kwargs):
    """Value, gradient and state: nnx.grad on two copies, eps from the oracle in float64."""
    once = nnx.clone(model)
    value, grads = nnx.value_and_grad(loss, argnums=nnx.DiffState(0, wrt))(once, **kwargs)
    moved = nnx.clone(model)
    params = nnx.state(moved, wrt)
    eps = oracle.perturbation(leaves(params), leaves(grads), rho=rho)
    eps = [np.float32(eps[name]) for name in leaves(params)]
    nnx.update(moved, jax.tree.unflatten(jax.tree.structure(params), eps_added(params, eps)))
    second = nnx.grad(loss, argnums=nnx.DiffState(0, wrt))(moved, **kwargs)
    return value, leaves(second), state_of(once)


def eps_added(params, eps):
    return [w + e for w, e in zip(jax.tree.leaves(params), eps, strict=True)]


def step(model, optimizer, x=X, y=Y, **axes):
    gradient = asam_jax.nnx.value_and_grad(loss, rho=0.5, operator=AUTHORS, **axes)
    value, grads = gradient(model, x, y)
    optimizer.update(model, grads)
    return value


def trained(run, steps=1, tx=None, **net):
    model: Any = Net(nnx.Rngs(0), **net)
    optimizer = nnx.Optimizer(model, tx or optax.sgd(0.1), wrt=nnx.Param)
    values = [run(model, optimizer) for _ in range(steps)]
    return model, values


@pytest.mark.parametrize("transform", [lambda f: f, nnx.jit])
def test_both_passes_and_the_state_are_those_by_hand(transform):
    model = Net(nnx.Rngs(0))
    transformed = transform(asam_jax.nnx.value_and_grad(loss, rho=0.5))
    for _ in range(2):
        value, grads, state = by_hand(model)
        got, got_grads = transformed(model)
        np.testing.assert_allclose(got, value, rtol=1e-6)
        close(leaves(got_grads), grads)
        close(state_of(model), state, 1e-6)
        assert jax.tree.structure(got_grads) == jax.tree.structure(nnx.state(model, nnx.Param))
    assert state_of(model)["drop/rngs/count"] == 2


def with_split_and_merge(model, optimizer):
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)

    def pure_loss(params):
        model = nnx.merge(graphdef, params, rest, copy=True)
        return loss(model), nnx.state(model, nnx.Not(nnx.Param))

    gradient = asam_jax.value_and_grad(pure_loss, rho=0.5, operator=AUTHORS, has_aux=True)
    (_, state), grads = gradient(params)
    nnx.update(model, state)
    optimizer.update(model, grads)


def with_grad_fn(model, optimizer):
    graphdef, _, rest = nnx.split(nnx.clone(model), nnx.Param, ...)  # before state moves
    grads = nnx.grad(loss)(model)
    grad_fn = lambda w: nnx.grad(loss)(nnx.merge(graphdef, w, rest, copy=True))  # noqa: E731
    optimizer.update(model, grads, grad_fn=grad_fn)


@pytest.mark.parametrize("run", [step, nnx.jit(step), with_split_and_merge, with_grad_fn])
def test_dropout_and_batch_norm_in_the_ways_that_people_write_it(run):
    """g04: 1.905 with other masks in the second pass, 3.45 with the statistics moved twice."""
    tx = asam_jax.asam(optax.sgd(0.1), 0.5, operator=AUTHORS) if run is with_grad_fn else None
    model, _ = trained(run, tx=tx)
    assert float(model.last.kernel[...].sum()) == pytest.approx(2.181898, rel=1e-5)
    assert float(model.norm.mean[...].sum()) == pytest.approx(2.309985, rel=1e-5)
    assert int(model.drop.rngs.count[...]) == 1


def test_steps_in_a_scan_are_those_of_a_loop():
    @nnx.scan(in_axes=(nnx.Carry, 0), out_axes=(nnx.Carry, 0))
    def scanned(carry, x):
        return carry, step(*carry, x)

    def whole(model, optimizer):
        return scanned((model, optimizer), jnp.stack([X, X, X]))[1]

    model, (values,) = trained(nnx.jit(whole))
    expected, losses = trained(step, 3)
    np.testing.assert_allclose(values, np.stack(losses), rtol=1e-5)
    close(leaves(nnx.state(model, nnx.Param)), leaves(nnx.state(expected, nnx.Param)), 1e-5)
    close(state_of(model), state_of(expected), 1e-5)


def test_several_modules_rngs_metrics_and_aux():
    """All are changed in place, once; Python values stay what they are."""
    make = lambda: (nnx.Linear(8, 4, rngs=nnx.Rngs(0)), nnx.Linear(4, 8, rngs=nnx.Rngs(1)))  # noqa: E731
    pair, rngs, metric = make(), nnx.Rngs(dropout=3), nnx.metrics.Average()
    shared = nnx.Dropout(0.5)

    def reconstruction(pair, x, rngs, *, metric, train, name="a"):
        assert train is True and name == "b"
        out = pair[1](shared(pair[0](x), rngs=rngs))
        value = jnp.mean((out - x) ** 2)
        metric.update(values=value)
        return value, {"out": out}

    step = asam_jax.nnx.value_and_grad(reconstruction, rho=0.5, has_aux=True)
    (value, aux), grads = step(pair, X, rngs, metric=metric, train=True, name="b")
    np.testing.assert_allclose(value, np.mean((aux["out"] - X) ** 2), rtol=1e-6)
    assert int(rngs.dropout.count[...]) == 1 and int(metric.count[...]) == 1
    np.testing.assert_allclose(metric.compute(), value, rtol=1e-6)

    def alone(pair):
        return reconstruction(
            pair, X, nnx.Rngs(dropout=3), metric=nnx.metrics.Average(), train=True, name="b"
        )[0]

    graphdef, params = nnx.split(make())
    expected = asam_jax.value_and_grad(lambda w: alone(nnx.merge(graphdef, w)), rho=0.5)(params)[1]
    close(leaves(grads), leaves(expected), 1e-6)
    optimizer = nnx.Optimizer(pair, optax.sgd(0.1), wrt=nnx.Param)
    optimizer.update(pair, grads)
    moved = make()[0].kernel[...] - 0.1 * expected[0]["kernel"][...]
    np.testing.assert_allclose(pair[0].kernel[...], moved, rtol=1e-5)


def test_wrt_says_what_is_perturbed():
    model = Net(nnx.Rngs(0))
    kernels = nnx.PathContains("kernel")
    value, grads, state = by_hand(model, wrt=kernels)
    got, got_grads = asam_jax.nnx.value_and_grad(loss, rho=0.5, wrt=kernels)(model)
    np.testing.assert_allclose(got, value, rtol=1e-6)
    close(leaves(got_grads), grads)
    assert set(grads) == {"first/kernel", "last/kernel"}
    close(state_of(model), state, 1e-6)
    with pytest.raises(ValueError, match=r"^wrt=.*LoRAParam.* selects no nnx\.Variable"):
        asam_jax.nnx.value_and_grad(loss, rho=0.5, wrt=nnx.LoRAParam)(model)


def test_a_loss_on_fewer_examples_makes_eps_and_leaves_no_state():
    model = Net(nnx.Rngs(0), rate=0.0)
    part = lambda model: loss(model, X[:4], Y[:4])  # noqa: E731
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)
    of = lambda f: lambda w: f(nnx.merge(graphdef, w, rest, copy=True))  # noqa: E731
    eps = asam_jax.perturbation(params, jax.grad(of(part))(params), rho=0.5)
    at = jax.tree.map(jnp.add, params, eps)
    moved = nnx.merge(graphdef, at, rest, copy=True)
    value = loss(moved)
    got, grads = asam_jax.nnx.value_and_grad(loss, rho=0.5, ascent_fun=part)(model)
    np.testing.assert_allclose(got, value, rtol=1e-6)
    close(leaves(grads), leaves(jax.grad(of(loss))(at)))
    close(state_of(model), state_of(moved), 1e-6)


@pytest.mark.parametrize("mapped", ["pmap", "shard_map", "jit"])
def test_eight_devices_take_the_step_of_one(mapped):
    axes = dict(axis_name="data", perturb_axis_name="data") if mapped != "jit" else {}
    y = jnp.linspace(0, 1, 32)[:, None]
    mesh = many.mesh((8,), ("data",))
    expected, (value,) = trained(functools.partial(step, y=y), rate=0.0)
    run = functools.partial(step, **axes)
    if mapped == "pmap":
        run = nnx.pmap(run, axis_name="data", in_axes=(None, None, 0, 0))
        x, y = X.reshape(8, 4, 8), y.reshape(8, 4, 1)
    else:
        x, y = jax.device_put((X, y), jax.sharding.NamedSharding(mesh, P("data")))
    if mapped == "shard_map":
        specs = (P(), P(), P("data"), P("data"))
        run = nnx.jit(nnx.shard_map(run, mesh=mesh, in_specs=specs, out_specs=P()))
    run = nnx.jit(run) if mapped == "jit" else run
    model, (got,) = trained(
        lambda *inputs: run(*inputs, x, y), rate=0.0, axis_name=axes.get("axis_name")
    )
    np.testing.assert_allclose(np.ravel(got)[0], value, rtol=1e-5)
    got_params, params = (leaves(nnx.state(m, nnx.Param)) for m in (model, expected))
    close(got_params, params, 1e-5)
    close(state_of(model), state_of(expected), 1e-5)
