"""Losses, batches, meshes and data as people hand them to the measures."""

import collections
import dataclasses
import gc

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import asam_jax

KEY = jax.random.key(0)
W, X = jnp.array([0.7, -0.4]), np.arange(16, dtype=np.float32).reshape(8, 2) / 8
SAM = asam_jax.identity()
MEASURES = {
    "sharpness": lambda loss: asam_jax.sharpness(loss, rho=0.1),
    "steps": lambda loss: asam_jax.sharpness(loss, rho=0.1, steps=2),
    "maximizer": lambda loss: lambda w, x: asam_jax.maximizer(loss, rho=0.1)(w, x)[1],
    "average": lambda loss: lambda w, x: asam_jax.average_sharpness(loss, sigma=0.1)(w, x, KEY),
    "profile": lambda loss: lambda w, x: asam_jax.radius_profile(loss)(w, x, [0.1]).rise[0],
}


def square(w, x):
    return jnp.mean(jnp.square(x @ w))


@dataclasses.dataclass
class Scaled:
    """No hash, as dataclasses have it."""

    factor: float = 0.5

    def __call__(self, w, x):
        return self.factor * square(w, x)


class Weighted(eqx.Module):
    weight: jax.Array

    def __call__(self, w, x):
        return jnp.mean(self.weight * jnp.square(x @ w))


def test_what_a_loss_closes_over_is_read_when_it_is_traced():
    """As under jax.jit: a new measure sees what has changed."""

    def closed(mean):
        residual = X @ np.asarray(W) - mean
        grads = X.T @ residual
        moved = residual + X @ (0.1 * grads / np.linalg.norm(grads))
        return np.mean(moved**2) - np.mean(residual**2)

    center = {"mean": jnp.array(0.0)}
    loss = lambda w, x: jnp.mean((x @ w - center["mean"]) ** 2)  # noqa: E731
    measure, anew = (asam_jax.sharpness(loss, rho=0.1, operator=SAM) for _ in range(2))
    for mean in (0.0, 3.0):
        center["mean"] = jnp.array(mean)
        np.testing.assert_allclose(measure(W, X), closed(0.0), rtol=1e-4)
    np.testing.assert_allclose(anew(W, X), closed(3.0), rtol=1e-4)


@pytest.mark.parametrize("measure", MEASURES.values(), ids=MEASURES)
def test_losses_without_a_hash(measure):
    expected = 0.5 * np.asarray(measure(square)(W, X))
    for loss in (Scaled(), Weighted(jnp.full(8, 0.5))):
        np.testing.assert_allclose(measure(loss)(W, X), expected, rtol=1e-4)


@pytest.mark.parametrize("name", ["sharpness", "average"])
def test_losses_that_are_no_scalar(name):
    for loss in (lambda w, x: jnp.square(x @ w), lambda w, x: (square(w, x), {})):
        with pytest.raises((TypeError, ValueError)):
            MEASURES[name](loss)(W, X)


def test_counts_of_numpy_and_bad_arguments():
    of_m = lambda m: asam_jax.sharpness(square, rho=0.1, m=m)(W, X)  # noqa: E731
    np.testing.assert_array_equal([of_m(np.int32(2)), of_m(np.int64(2))], of_m(2))
    average = lambda n: asam_jax.average_sharpness(square, sigma=0.1, samples=n)(W, X, KEY)  # noqa: E731
    np.testing.assert_array_equal(average(np.int64(4)), average(4))
    for m, said in [(True, "be an integer of"), (2.0, "be an integer of"), (3, "divide the one")]:
        with pytest.raises(ValueError, match=f"m must {said}"):
            of_m(m)
    for measure in (asam_jax.sharpness, asam_jax.maximizer):
        with pytest.raises(ValueError, match="steps must be an integer of at least 1"):
            measure(square, rho=0.1, steps=0)
    with pytest.raises(ValueError, match="sigma must be at least 0"):
        asam_jax.average_sharpness(square, sigma=-1.0)


def test_a_graph_is_a_batch_and_nothing_is_none():
    """Leaves of their own leading axes, against the same loss over a closure."""
    graph = collections.namedtuple("Graph", "nodes senders receivers")(
        jax.random.normal(KEY, (5, 2)), jnp.arange(7) * 2 % 5, jnp.arange(7) % 5
    )

    def loss(w, g):
        messages = jax.ops.segment_sum((g.nodes @ w)[g.senders], g.receivers, 5)
        return jnp.mean((messages - 1) ** 2)

    for name in ("sharpness", "average", "profile"):
        expected = MEASURES[name](lambda w, _: loss(w, graph))(W, ())
        np.testing.assert_allclose(MEASURES[name](loss)(W, graph), expected, rtol=1e-5)
        with pytest.raises(ValueError, match="batch must hold an example at least"):
            MEASURES[name](square)(W, X[:0])
    with pytest.raises(ValueError, match=r"one leading axis.*in common.*\(5,\), \(7,\)"):
        asam_jax.sharpness(loss, rho=0.1, m=1)(W, graph)


@pytest.mark.parametrize("name", ["sharpness", "steps", "profile"])
@pytest.mark.parametrize("frozen", [False, np.array([False, True])])
def test_a_frozen_parameter_whose_gradient_is_no_number(name, frozen):
    """Each trained entry has gradient 1, so L(w + eps) - L(w) is rho times its length."""
    params = {"frozen": jnp.array([0.0, 1.0]), "head": jnp.ones(1)}
    operator = asam_jax.masked(SAM, {"frozen": frozen, "head": True})
    loss = lambda w, x: jnp.sqrt(w["frozen"][0]) + w["frozen"][1] + w["head"][0]  # noqa: E731
    trained = np.sqrt(1 + np.sum(frozen))
    if name == "profile":
        profile = asam_jax.radius_profile(loss, operator=operator)(params, X, [0.5])
        np.testing.assert_allclose(profile.slope, trained, rtol=1e-6)
        value = profile.rise[0]
    else:
        how = dict(rho=0.5, operator=operator, steps=3 if name == "steps" else 1)
        value = asam_jax.sharpness(loss, **how)(params, X)
    np.testing.assert_allclose(value, 0.5 * trained, rtol=1e-5)


def test_a_kept_measure_is_traced_and_compiled_once_whatever_the_loss_does():
    """Also with a callback in the loss and in groups; a NumPy data set comes group by group."""
    traces, seen = [], []

    def loss(w, x):
        assert x.shape == (2, 2)
        traces.append(1)
        jax.debug.callback(seen.append, jnp.sum(w))
        return square(w, x)

    for keywords in ({}, {"steps": 3}):
        measure = asam_jax.sharpness(loss, rho=0.1, m=2, **keywords)
        for at in ((W, X), (2 * W, X + 1)):
            measure(*at)
            assert len(traces) == 2  # with the gradient and without
        traces.clear()
    jax.effects_barrier()
    assert len(seen) == 2 * 4 * (2 + 4)  # a step: 2 losses; an ascent of 3: 4


def test_arrays_are_freed_with_the_measure():
    def measured(number):
        data = jnp.full((250_000,), float(number))
        inner = jax.jit(lambda w: jnp.mean(data) * jnp.sum(w**2))
        asam_jax.sharpness(lambda w, x: inner(w), rho=0.1, steps=2)(W, X)
        gc.collect()
        return sum(array.nbytes for array in jax.live_arrays())

    found = [measured(number) for number in range(3)]
    assert found[-1] <= found[0]


def test_the_derivative_of_sharpness():
    """Against central differences; finite also at parameters that are zero."""
    loss = lambda w, x: jnp.mean(((x * w["a"][None]) @ w["b"] - x[0]) ** 2)  # noqa: E731
    measure = asam_jax.sharpness(loss, rho=0.1)
    with jax.enable_x64(True):
        w = {"a": jnp.array([0.3, -0.2]), "b": jnp.array([0.0, 0.0])}
        x = jnp.array([[1.0, 2.0], [0.5, -1.0]])
        grads = jax.grad(measure)(w, x)
        assert all(np.isfinite(leaf).all() for leaf in grads.values())
        for entry in (0, 1):
            at = [measure({**w, "a": w["a"].at[entry].add(h)}, x) for h in (1e-6, -1e-6)]
            expected = (at[0] - at[1]) / 2e-6
            np.testing.assert_allclose(grads["a"][entry], expected, rtol=1e-4)


@pytest.mark.parametrize("types", [AxisType.Explicit, AxisType.Auto])
def test_a_mesh_gives_one_devices_value(types):
    """A batch cut into groups that fit the mesh; parameters cut, too."""
    mesh = jax.make_mesh((2,), ("x",), axis_types=(types,))
    w = {"kernel": jax.random.normal(KEY, (4, 6)), "bias": jnp.zeros(6)}
    x = jax.random.normal(jax.random.key(1), (4, 4))
    loss = lambda w, x: jnp.mean((jnp.tanh(x @ w["kernel"]) + w["bias"][None] - 1) ** 2)  # noqa: E731
    put = lambda a, *spec: jax.device_put(a, NamedSharding(mesh, P(*spec)))  # noqa: E731
    whole = jax.tree.map(lambda a: put(a), w)
    cut = {"kernel": put(w["kernel"], None, "x"), "bias": put(w["bias"], "x")}
    profile, average = asam_jax.radius_profile(loss, m=2), asam_jax.average_sharpness
    for measure, params, batch in (
        (asam_jax.sharpness(loss, rho=2.0, m=2), whole, put(x, "x")),
        (lambda w, x: profile(w, x, [2.0]).slope, whole, put(x, "x")),
        (asam_jax.sharpness(loss, rho=2.0, steps=2), cut, put(x)),
        (lambda w, x: average(loss, sigma=1.0, samples=2)(w, x, KEY), cut, put(x)),
    ):
        np.testing.assert_allclose(measure(params, batch), measure(w, x), rtol=1e-4)


@pytest.mark.parametrize("check_vma", [True, False])
def test_inside_shard_map_each_device_has_its_own_value(check_vma):
    """So that their mean is that over groups of a device's examples."""
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    w = {"kernel": jax.random.normal(KEY, (4, 2)), "bias": jnp.zeros(2)}
    x = jax.random.normal(jax.random.key(1), (16, 4)) + jnp.arange(16.0)[:, None] / 8
    loss = lambda w, x: jnp.mean((x @ w["kernel"] + w["bias"][None] - 1) ** 2)  # noqa: E731
    shared = lambda w, x: jax.lax.pmean(loss(w, x), "data")  # noqa: E731
    of = lambda loss, **keywords: asam_jax.sharpness(loss, rho=0.5, **keywords)  # noqa: E731
    profile = lambda m, w, x: asam_jax.radius_profile(loss, m=m)(w, x, [0.5])  # noqa: E731

    def here(w, x):
        own = profile(None, w, x)
        values = [own.slope, own.rise[0], of(loss)(w, x), of(loss, m=2)(w, x)]
        values = jax.lax.pmean(values, "data")
        # A loss that averages itself has one value on all devices, if the types are in force.
        return [*values, of(shared, steps=2)(w, x)] if check_vma else values

    specs = {"in_specs": (P(), P("data")), "out_specs": P(), "check_vma": check_vma}
    found = jax.jit(jax.shard_map(here, mesh=mesh, **specs))(w, x)
    there = profile(4, w, x)
    expected = [there.slope, there.rise[0], of(loss, m=4)(w, x), of(loss, m=2)(w, x)]
    expected += [of(loss, steps=2)(w, x)] if check_vma else []
    np.testing.assert_allclose(found, expected, rtol=1e-5)
