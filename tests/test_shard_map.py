"""Whose gradient makes eps under shard_map: each device's, a group's or all devices'."""

import functools

import jax
import jax.numpy as jnp
import many
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P

import asam_jax

loss = functools.partial(many.loss, jnp)
ALL = [many.EXAMPLES]

CASES = [
    # mesh shape and names, perturb_axis_name, the examples that share an eps
    pytest.param((8,), ("data",), None, many.ONE_EACH, id="each device its own"),
    pytest.param((8,), ("data",), "data", ALL, id="one for all"),
    pytest.param((4, 2), ("outer", "inner"), None, many.ONE_EACH, id="two axes, each its own"),
    pytest.param(
        (4, 2), ("outer", "inner"), "inner", list(many.GRID.reshape(4, 4)), id="groups of two"
    ),
    pytest.param(
        (4, 2),
        ("outer", "inner"),
        "outer",
        list(many.GRID.transpose(1, 0, 2).reshape(2, 8)),
        id="groups of four",
    ),
    pytest.param((4, 2), ("outer", "inner"), ("outer", "inner"), ALL, id="two axes, one for all"),
]


@pytest.mark.parametrize("check_vma", [True, False])
@pytest.mark.parametrize(("shape", "names", "perturb", "groups"), CASES)
def test_equals_one_device_with_the_same_groups(shape, names, perturb, groups, check_vma):
    params, x, y = many.problem()
    mapped = jax.shard_map(
        many.both_forms(names, perturb),
        mesh=many.mesh(shape, names),
        in_specs=(P(), P(names), P(names)),
        out_specs=P(),
        check_vma=check_vma,
    )
    (value, grads), updates = jax.jit(mapped)(params, x, y)
    expected_value, expected = many.reference(params, x, y, groups)
    assert float(value) == pytest.approx(expected_value, rel=1e-5)
    many.close(grads, expected)
    many.close(updates, expected)


def test_the_choice_matters():
    """The references differ by far more than the tolerance that tells them apart."""
    params, x, y = many.problem()
    _, own = many.reference(params, x, y, many.ONE_EACH)
    _, group = many.reference(params, x, y, list(many.GRID.reshape(4, 4)))
    _, shared = many.reference(params, x, y, ALL)
    for a, b in ((own, group), (group, shared), (own, shared)):
        assert np.abs(a["kernel"] - b["kernel"]).max() > 1e-2 * np.abs(b["kernel"]).max()


def mapped_over_data(link):
    """A step that hands the link a gradient at replicated parameters, on eight devices."""

    def step(params, x, y):
        grad_fn = lambda w: jax.grad(loss)(w, x, y)  # noqa: E731
        return link.update(grad_fn(params), link.init(params), params, grad_fn=grad_fn)[0]

    mapped = jax.shard_map(
        step,
        mesh=many.mesh((8,), ("data",)),
        in_specs=(P(), P("data"), P("data")),
        out_specs=P(),
    )
    return jax.jit(mapped)


def test_a_gradient_that_shard_map_has_summed_serves_one_eps_for_all():
    """At replicated parameters it is the sum over devices, and eps does not see its size."""
    params, x, y = many.problem()
    link = asam_jax.sharpness_aware(many.RHO, axis_name="data", perturb_axis_name="data")
    many.close(mapped_over_data(link)(params, x, y), many.reference(params, x, y, ALL)[1])


def test_such_a_gradient_is_refused_where_each_device_has_its_own():
    params, x, y = many.problem()
    link = asam_jax.sharpness_aware(many.RHO, axis_name="data")
    with pytest.raises(ValueError, match=r"updates\['bias'\] is the same on all devices"):
        mapped_over_data(link)(params, x, y)


def test_aux_is_each_devices_own():
    def with_aux(params, x, y):
        return loss(params, x, y), jnp.sum(x).reshape(1)

    params, x, y = many.problem()
    step = asam_jax.value_and_grad(with_aux, rho=many.RHO, has_aux=True, axis_name="data")
    mapped = jax.shard_map(
        step,
        mesh=many.mesh((8,), ("data",)),
        in_specs=(P(), P("data"), P("data")),
        out_specs=((P(), P("data")), P()),
    )
    (_, sums), _ = jax.jit(mapped)(params, x, y)
    np.testing.assert_allclose(sums, x.reshape(8, 2, 6).sum(axis=(1, 2)), rtol=1e-5)


def test_an_axis_that_is_not_mapped():
    params, x, y = many.problem()
    step = asam_jax.value_and_grad(loss, rho=many.RHO, axis_name=("data", "model"))
    mapped = jax.shard_map(
        step,
        mesh=many.mesh((8,), ("data",)),
        in_specs=(P(), P("data"), P("data")),
        out_specs=P(),
    )
    with pytest.raises(ValueError, match="axis_name: 'model' is not a mapped axis here"):
        jax.jit(mapped)(params, x, y)
    link = asam_jax.asam(optax.sgd(0.1), axis_name="data")
    grads = jax.tree.map(jnp.zeros_like, params)
    with pytest.raises(ValueError, match="axis_name: 'data' is not a mapped axis here"):
        link.update(grads, link.init(params), params, grad_fn=lambda w: w)


@pytest.mark.parametrize(
    "make", [asam_jax.sharpness_aware, functools.partial(asam_jax.value_and_grad, loss)]
)
def test_a_perturbation_axis_that_is_not_among_the_axes(make):
    with pytest.raises(ValueError, match=r"perturb_axis_name holds \['inner'\], which axis_name="):
        make(rho=0.5, axis_name="outer", perturb_axis_name=("outer", "inner"))
    with pytest.raises(ValueError, match=r"perturb_axis_name holds \['data'\].* add"):
        make(rho=0.5, perturb_axis_name="data")
