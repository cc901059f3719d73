"""Every variant on eight devices: the steps that NumPy takes on one.

Under shard_map with its types in force a gradient at replicated parameters is summed over the
devices, and a loss may average itself. Both are refused with axis_name and right without.
"""

import functools

import jax
import many
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from variants import (
    ALL,
    RULES,
    STEPS,
    by_hand,
    optimizer,
    step_of,
    trained,
)

import asam_jax

SHARES = {None: many.ONE_EACH, "data": many.WHOLE}
BOTH_MENDS = r"leave axis_name out.*jax\.lax\.pcast\(params, \('data',\), to='varying'\)"
IN_SPECS = (P(), P(), P("data"), P("data"))


def by_shard_map(step, **options):
    mesh = many.mesh((8,), ("data",))
    return jax.jit(jax.shard_map(step, mesh=mesh, in_specs=IN_SPECS, out_specs=P(), **options))


def by_pmap(step):
    mapped = jax.pmap(step, axis_name="data", in_axes=(None, None, 0, 0), out_axes=(None, None))
    return lambda w, state, x, y: mapped(w, state, x.reshape(8, 2, 6), y.reshape(8, 2, 4))


def averaged(params, x, y):
    """A loss that is the mean over all devices."""
    return jax.lax.pmean(many.loss(params, x, y), "data")


def divided(params, x, y):
    """A loss whose sum over devices is the mean over all of them."""
    return many.loss(params, x, y) / 8


# Friendly SAM's average is of the gradient that makes eps: with an eps for each device it is each
# device's own, which no state can hold.
@pytest.mark.parametrize(
    ("name", "perturb"),
    [(name, share) for name in ALL for share in SHARES if (name, share) != ("Friendly SAM", None)],
)
def test_gradients_of_each_device_are_averaged(name, perturb):
    tx = optimizer(name, axis_name="data", perturb_axis_name=perturb)
    step = by_shard_map(step_of(tx, "data"))
    many.close(trained(tx, step)[0], by_hand(RULES[name], groups=SHARES[perturb]))


@pytest.mark.parametrize("perturb", SHARES)
@pytest.mark.parametrize("name", ["LookSAM", "decoupled WSAM"])
def test_under_pmap_and_where_types_are_not_kept(name, perturb):
    tx = optimizer(name, axis_name="data", perturb_axis_name=perturb)
    expected = by_hand(RULES[name], groups=SHARES[perturb])
    for step in (by_pmap(step_of(tx)), by_shard_map(step_of(tx), check_vma=False)):
        many.close(trained(tx, step)[0], expected)


@pytest.mark.parametrize(
    ("name", "loss"), [*[(name, averaged) for name in ALL], ("exact", divided), ("WSAM", divided)]
)
def test_a_gradient_that_is_already_summed(name, loss):
    """Right without axis_name; refused with it, on steps that skip the perturbation, too."""
    tx = optimizer(name)
    many.close(trained(tx, by_shard_map(step_of(tx, loss=loss)))[0], by_hand(RULES[name]))

    for axes in (dict(axis_name="data"), dict(axis_name="data", perturb_axis_name="data")):
        tx = optimizer(name, **axes)
        for perturb in (None, False):
            told = optax.GradientTransformationExtraArgs(
                tx.init, functools.partial(tx.update, perturb=perturb)
            )
            with pytest.raises(ValueError, match=BOTH_MENDS):
                jax.eval_shape(by_shard_map(step_of(told, loss=loss)), *arguments(tx))


def arguments(tx):
    params, x, y = many.problem()
    return params, tx.init(params), x, y


def test_a_loss_that_averages_itself_in_value_and_grad():
    params, x, y = many.problem()
    expected_value, expected = many.reference(params, x, y, many.WHOLE)

    def mapped(**axes):
        step = asam_jax.value_and_grad(averaged, rho=many.RHO, **axes)
        return by_shard_map(lambda params, state, x, y: step(params, x, y))(params, (), x, y)

    value, grads = mapped()
    np.testing.assert_allclose(value, expected_value, rtol=1e-5)
    many.close(grads, expected)
    for axes in (dict(axis_name="data"), dict(axis_name="data", perturb_axis_name="data")):
        with pytest.raises(ValueError, match=BOTH_MENDS):
            mapped(**axes)


def test_a_parameter_that_the_loss_does_not_use():
    """Its gradient is zero, and varies as the others do once the parameters are cast."""
    params, x, y = many.problem()
    params = {**params, "unused": np.ones(2, np.float32)}
    tx = asam_jax.sharpness_aware(many.RHO, axis_name="data")

    def updates(params, state, x, y):
        grad_fn = lambda w: jax.grad(many.loss)(w, x, y)  # noqa: E731
        at = many.varying(params, x, "data")
        return tx.update(grad_fn(at), state, params, grad_fn=grad_fn)[0]

    got = dict(by_shard_map(updates)(params, tx.init(params), x, y))
    assert not np.any(got.pop("unused"))
    del params["unused"]
    many.close(got, many.reference(params, x, y, many.ONE_EACH)[1])


def test_sharded_parameters_and_what_is_kept_stay_where_they_lie():
    mesh = many.mesh((8,), ("data",))
    specs = {"kernel": P(None, "data"), "bias": P("data"), "head": P("data")}
    shardings = {name: NamedSharding(mesh, spec) for name, spec in specs.items()}
    params = jax.device_put(many.problem()[0], shardings)
    tx = optimizer("Friendly SAM")
    step, state = jax.jit(step_of(tx)), jax.jit(tx.init)(params)
    for number in range(STEPS):
        batch = jax.device_put(many.problem(seed=number)[1:], NamedSharding(mesh, P("data")))
        params, state = step(params, state, *batch)
    many.close(params, by_hand(RULES["Friendly SAM"]))
    for name, leaf in params.items():
        kept = optax.tree.get(state, "ema")[name]
        assert leaf.sharding.is_equivalent_to(shardings[name], leaf.ndim)
        assert kept.sharding.is_equivalent_to(shardings[name], leaf.ndim)
