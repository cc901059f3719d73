"""Whose gradient makes eps under pmap, vmap and shard_map: each device's, a group's or all's."""

import functools

import jax
import jax.numpy as jnp
import many
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P
from many import GRID, ONE_EACH, WHOLE

import asam_jax

loss = many.loss
PAIRS, FOURS = list(GRID.reshape(4, 4)), list(GRID.transpose(1, 0, 2).reshape(2, 8))
TWO = ("outer", "inner")

SHARD_MAP = [
    # perturb_axis_name, the examples that share an eps, check_vma
    pytest.param(None, ONE_EACH, True, id="each its own"),
    pytest.param("inner", PAIRS, True, id="groups of two"),
    pytest.param("outer", FOURS, True, id="groups of four"),
    pytest.param(TWO, WHOLE, True, id="one for all"),
    pytest.param("outer", FOURS, False, id="groups of four, no types"),
]


@pytest.mark.parametrize(("perturb", "groups", "check_vma"), SHARD_MAP)
def test_shard_map_equals_one_device(perturb, groups, check_vma):
    params, x, y = many.problem()
    mapped = jax.shard_map(
        many.both(TWO, perturb),
        mesh=many.mesh((4, 2), TWO),
        in_specs=(P(), P(TWO), P(TWO)),
        out_specs=P(),
        check_vma=check_vma,
    )
    (value, grads), updates = jax.jit(mapped)(params, x, y)
    expected_value, expected = many.reference(params, x, y, groups)
    assert float(value) == pytest.approx(expected_value, rel=1e-5)
    many.close(grads, expected)
    many.close(updates, expected)


@pytest.mark.parametrize(
    ("perturb", "groups"),
    [(None, ONE_EACH), ("inner", PAIRS), ("outer", FOURS)],
    ids=["each part its own", "groups of two", "groups of four"],
)
def test_a_vmap_inside_a_pmap_equals_one_device(perturb, groups):
    """Four devices with two groups each; axes of pmap and of vmap are averaged over alike."""
    params, x, y = many.problem()
    inner = jax.vmap(many.both(TWO, perturb), axis_name="inner", in_axes=(None, 0, 0))
    mapped = jax.pmap(
        inner, axis_name="outer", in_axes=(None, 0, 0), devices=jax.local_devices()[:4]
    )
    found = mapped(params, x.reshape(4, 2, 2, 6), y.reshape(4, 2, 2, 4))
    (value, grads), updates = jax.tree.map(lambda a: np.asarray(a).reshape(8, *a.shape[2:]), found)
    expected_value, expected = many.reference(params, x, y, groups)
    np.testing.assert_allclose(value, np.full(8, expected_value), rtol=1e-5)
    for device in range(8):
        many.close({name: g[device] for name, g in grads.items()}, expected)
        many.close({name: g[device] for name, g in updates.items()}, expected)


def test_pmap_with_replicas_keeps_them_alike():
    """Three steps on stacked parameters and state, which are donated."""
    params, x, y = many.problem()
    tx = asam_jax.asam(optax.sgd(0.05, momentum=0.9), many.RHO, axis_name="data")

    @functools.partial(jax.pmap, axis_name="data", donate_argnums=(0, 1))
    def step(params, state, x, y):
        grad_fn = lambda w: jax.grad(loss)(w, x, y)  # noqa: E731
        updates, state = tx.update(grad_fn(params), state, params, grad_fn=grad_fn)
        return optax.apply_updates(params, updates), state

    stack = lambda tree: jax.tree.map(lambda a: jnp.stack([a] * 8), tree)  # noqa: E731
    replicas, state = stack(params), stack(tx.init(params))
    w, velocity = params, {name: 0.0 for name in params}
    for _ in range(3):
        replicas, state = step(replicas, state, x.reshape(8, 2, 6), y.reshape(8, 2, 4))
        _, grads = many.reference(w, x, y, ONE_EACH)
        velocity = {name: 0.9 * velocity[name] + grads[name] for name in w}
        w = {name: w[name] - 0.05 * velocity[name] for name in w}
    for device in range(8):
        many.close({name: a[device] for name, a in replicas.items()}, w)


def test_aux_is_each_devices_own():
    def with_aux(params, x, y):
        return loss(params, x, y), jnp.sum(x).reshape(1)

    params, x, y = many.problem()
    step = asam_jax.value_and_grad(with_aux, rho=many.RHO, has_aux=True, axis_name="data")
    (_, sums), _ = many.over_data(step, out_specs=((P(), P("data")), P()))(params, x, y)
    np.testing.assert_allclose(sums, x.reshape(8, 2, 6).sum(axis=(1, 2)), rtol=1e-5)


@pytest.mark.parametrize("threshold", [0.5, 2.0])
def test_a_decision_of_each_device_is_refused_and_one_of_all_is_taken(threshold):
    """g02: devices that took different branches waited for each other."""
    params, x, y = many.problem()
    tx = asam_jax.sharpness_aware(many.RHO, axis_name="data", perturb_axis_name="data")

    def mapped(average):
        def step(params, x, y):
            grad_fn = lambda w: jax.grad(loss)(w, x, y)  # noqa: E731
            grads = grad_fn(many.varying(params, x, "data"))
            perturb = average(jnp.mean(x**2)) > threshold
            return tx.update(grads, tx.init(params), params, grad_fn=grad_fn, perturb=perturb)[0]

        return many.over_data(step)

    assert 0.5 < np.mean(x**2) < 2.0
    perturbed = many.reference(params, x, y, WHOLE)[1]
    decided = mapped(lambda value: jax.lax.pmean(value, "data"))(params, x, y)
    many.close(decided, perturbed if threshold == 0.5 else many.gradient(params, x, y))
    with pytest.raises(ValueError, match=r"perturb varies over \('data',\)"):
        jax.eval_shape(mapped(lambda value: value), params, x, y)


@pytest.mark.parametrize(
    "ascent", [asam_jax.friendly_ascent(0.8, 0.6), optax.ema(0.5, debias=False)]
)
def test_each_device_keeps_its_own_state_between_perturbed_steps(ascent):
    """Of both branches of `every`, in types that vary; the directions stay along the gradient."""
    params, x, y = many.problem()
    tx = asam_jax.sharpness_aware(many.RHO, every=2, ascent=ascent, axis_name="data")

    def steps(params, x, y):
        grad_fn = lambda w: jax.grad(loss)(w, x, y)  # noqa: E731
        grads = grad_fn(many.varying(params, x, "data"))
        state, updates = tx.init(params), []
        for _ in range(3):
            new, state = tx.update(grads, state, params, grad_fn=grad_fn)
            updates.append(new)
        return updates

    perturbed = many.reference(params, x, y, ONE_EACH)[1]
    expected = [perturbed, many.gradient(params, x, y), perturbed]
    for got, right in zip(many.over_data(steps)(params, x, y), expected, strict=True):
        many.close(got, right)
