"""jit over sharded arrays: the result of one device, and everything stays where it lies."""

import functools

import jax
import many
import numpy as np
import optax
import oracle
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from variants import RULES, STEPS, by_hand, optimizer, step_of

import asam_jax

loss = many.loss

LAYOUTS = {
    # every leaf cut over the data axis, as FSDP does
    "fsdp": ((8,), ("data",), {"kernel": P(None, "data"), "bias": P("data"), "head": P("data")}),
    # columns, then rows, over an axis of their own: one sum after the second layer
    "tensor parallel": (
        (2, 4),
        ("data", "model"),
        {"kernel": P(None, "model"), "bias": P("model"), "head": P("model")},
    ),
    "replicated": ((8,), ("data",), {"kernel": P(), "bias": P(), "head": P()}),
}


@pytest.fixture(params=LAYOUTS, ids=str)
def layout(request):
    """The parameters laid out, the batch's sharding, and those of the parameters by name."""
    shape, names, specs = LAYOUTS[request.param]
    mesh = many.mesh(shape, names)
    shardings = {name: NamedSharding(mesh, spec) for name, spec in specs.items()}
    params = jax.device_put(many.problem()[0], shardings)
    return params, NamedSharding(mesh, P("data")), shardings


def test_training_equals_numpy_and_keeps_the_shardings(layout):
    """Of the parameters and of the average that Friendly SAM keeps."""
    params, batch_sharding, shardings = layout
    tx = optimizer("Friendly SAM")
    state = tx.init(params)  # lies as params, but for the step count
    on_all = NamedSharding(batch_sharding.mesh, P())
    state = jax.tree.map(lambda a: a if a.ndim else jax.device_put(a, on_all), state)
    step = jax.jit(step_of(tx), donate_argnums=(0, 1))
    for number in range(STEPS):
        batch = jax.device_put(many.problem(seed=number)[1:], batch_sharding)
        params, state = step(params, state, *batch)
    many.close(jax.device_get(params), by_hand(RULES["Friendly SAM"]))
    for tree in (params, optax.tree.get(state, "ema")):
        for name, leaf in tree.items():
            assert leaf.sharding.is_equivalent_to(shardings[name], leaf.ndim), (name, leaf.sharding)
    cached = step._cache_size()  # pyright: ignore[reportFunctionMemberAccess, reportAttributeAccessIssue]
    assert cached == 1  # the second step's arguments lie as the first's


@pytest.mark.parametrize("p", [1.0, 2.0, np.inf])
def test_filters_that_are_cut_over_devices(p):
    """The scale of a filter is that of all its parts, whichever axis is cut."""
    random = np.random.default_rng(1)
    params = {"conv/kernel": random.normal(size=(3, 3, 8, 16)).astype(np.float32)}
    grads = {"conv/kernel": random.normal(size=(3, 3, 8, 16)).astype(np.float32)}
    expected = oracle.perturbation(params, grads, rho=0.5, p=p, operator="filterwise")
    mesh = many.mesh((2, 4), ("in", "out"))
    for spec in (P(None, None, "in", "out"), P(None, None, ("in", "out"))):
        sharding = NamedSharding(mesh, spec)
        cut = jax.device_put((params, grads), sharding)
        ascent = functools.partial(
            asam_jax.perturbation, rho=0.5, p=p, operator=asam_jax.filterwise()
        )
        eps = jax.jit(ascent)(*cut)
        many.close(jax.device_get(eps), expected)
        assert eps["conv/kernel"].sharding.is_equivalent_to(sharding, 4)


def test_a_mesh_with_explicit_axes():
    """There a sharding is part of an array's type; the perturbation keeps it."""
    params, x, y = many.problem()
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Explicit,))
    with jax.set_mesh(mesh):
        cut = jax.device_put((x, y), NamedSharding(mesh, P("data")))
        shared = jax.device_put(params, NamedSharding(mesh, P()))
        value, grads = jax.jit(asam_jax.value_and_grad(loss, rho=many.RHO))(shared, *cut)
        eps = jax.jit(functools.partial(asam_jax.perturbation, rho=many.RHO))(
            *[{"head": jax.device_put(w["head"], P("data"))} for w in (shared, grads)]
        )
    expected_value, expected = many.reference(params, x, y, many.WHOLE)
    assert float(value) == pytest.approx(expected_value, rel=1e-5)
    many.close(jax.device_get(grads), expected)
    assert eps["head"].sharding.spec == P("data", None)
