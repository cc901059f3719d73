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

import asam_jax

loss = many.loss
LR, MOMENTUM, STEPS = 0.1, 0.9, 3

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
    """The parameters laid out, the batch cut over the data axis, and the shardings by name."""
    shape, names, specs = LAYOUTS[request.param]
    mesh = many.mesh(shape, names)
    params, x, y = many.problem()
    shardings = {name: NamedSharding(mesh, spec) for name, spec in specs.items()}
    batch = jax.device_put((x, y), NamedSharding(mesh, P("data")))
    return jax.device_put(params, shardings), batch, shardings


def lie_as(tree, shardings):
    """Asserts that each leaf lies as the parameter of its name does."""
    for name, leaf in tree.items():
        assert leaf.sharding.is_equivalent_to(shardings[name], leaf.ndim), (name, leaf.sharding)


def trained_by_numpy():
    """Three steps with momentum, one eps for the whole batch."""
    params, x, y = many.problem()
    trace = {name: np.zeros_like(w, np.float64) for name, w in params.items()}
    for _ in range(STEPS):
        _, grads = many.reference(params, x, y, many.WHOLE)
        trace = {name: MOMENTUM * trace[name] + grads[name] for name in params}
        params = {name: params[name] - LR * trace[name] for name in params}
    return params, trace


def test_training_equals_numpy_and_keeps_the_shardings(layout):
    params, (x, y), shardings = layout
    tx = asam_jax.asam(optax.sgd(LR, MOMENTUM), many.RHO)

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(params, state):
        grad_fn = lambda w: jax.grad(loss)(w, x, y)  # noqa: E731
        updates, state = tx.update(grad_fn(params), state, params, grad_fn=grad_fn)
        return optax.apply_updates(params, updates), state

    state = tx.init(params)  # lies as params, but for the step count
    on_all = NamedSharding(shardings["bias"].mesh, P())
    state = jax.tree.map(lambda a: a if a.ndim else jax.device_put(a, on_all), state)
    for _ in range(STEPS):
        params, state = step(params, state)
    trace = optax.tree.get(state, "trace")
    expected, expected_trace = trained_by_numpy()
    many.close(jax.device_get(params), expected)
    many.close(jax.device_get(trace), expected_trace)
    lie_as(params, shardings)
    lie_as(trace, shardings)
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
