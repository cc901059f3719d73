"""Every variant on eight devices: the steps that NumPy takes on one.

Under shard_map with its types in force a gradient at replicated parameters is summed over the
devices, and a loss may average itself. Both are refused with axis_name and right without.
"""

import functools

import jax
import jax.numpy as jnp
import many
import numpy as np
import pytest
from variants import ALL, RULES, by_hand, optimizer, step_of, trained

import asam_jax

SHARES = {None: many.ONE_EACH, "data": many.WHOLE}
BOTH_MENDS = r"leave axis_name out.*jax\.lax\.pcast\(params, \('data',\), to='varying'\)"
STEP = (many.SHARED, many.SHARED, many.CUT, many.CUT)
by_shard_map = functools.partial(many.over_data, in_specs=STEP)


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


@pytest.mark.parametrize("name", ["LookSAM", "decoupled WSAM"])
def test_under_pmap_and_where_types_are_not_kept(name):
    for share, mapped in (
        (None, by_pmap),
        ("data", functools.partial(by_shard_map, check_vma=False)),
    ):
        tx = optimizer(name, axis_name="data", perturb_axis_name=share)
        many.close(trained(tx, mapped(step_of(tx)))[0], by_hand(RULES[name], groups=SHARES[share]))


@pytest.mark.parametrize(
    ("name", "loss"), [*[(name, averaged) for name in ALL], ("exact", divided), ("WSAM", divided)]
)
def test_a_gradient_that_is_already_summed(name, loss):
    """Right without axis_name; refused with it, on steps that skip the perturbation, too."""
    tx = optimizer(name)
    many.close(trained(tx, by_shard_map(step_of(tx, loss=loss)))[0], by_hand(RULES[name]))

    for axes in (dict(axis_name="data"), dict(axis_name="data", perturb_axis_name="data")):
        tx = optimizer(name, **axes)
        params, *batch = many.problem()
        for perturb in (None, False):
            step = by_shard_map(step_of(tx, loss=loss, perturb=perturb))
            with pytest.raises(ValueError, match=BOTH_MENDS):
                jax.eval_shape(step, params, tx.init(params), *batch)


def token_loss(params, x, y, real):
    """Over the tokens of all devices that are real."""
    hidden = jnp.tanh(x @ params["kernel"] + params["bias"][None])
    error = jnp.sum((hidden @ params["head"] - y) ** 2, axis=1)
    return jnp.divide(*jax.lax.psum((jnp.sum(error * real), jnp.sum(real)), "data"))


def test_a_loss_over_the_tokens_of_all_devices_in_value_and_grad():
    """g03: psum(sum) / psum(count) is the final loss, for which axis_name is left out."""
    params, x, y = many.problem()
    real = np.arange(16) % 3 > 0

    def mapped(**axes):
        step = asam_jax.value_and_grad(token_loss, rho=many.RHO, **axes)
        on_devices = many.over_data(step, (many.SHARED, many.CUT, many.CUT, many.CUT))
        return on_devices(params, x, y, real.astype(np.float32))

    value, grads = mapped()
    kept = [np.arange(real.sum())]
    expected_value, expected = many.reference(params, x[real], y[real], kept)
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
