"""Parameters cut over an axis inside shard_map: the steps that NumPy takes on one device."""

import functools

import jax
import jax.numpy as jnp
import many
import numpy as np
import optax
import oracle
import pytest
from jax.sharding import PartitionSpec as P
from variants import ALL, LR, RULES, by_hand, exact, optimizer, perturbed

import asam_jax

# Hidden units are cut over "model", examples over "data". The bias is replicated, and each device
# takes its part of it: its squares count once.
SPECS = {"kernel": P(None, "model"), "bias": P(), "head": P("model")}
HALVES = [many.EXAMPLES[:8], many.EXAMPLES[8:]]
STEPS = 4


def loss(params, x, y, over=None):
    """Of a device's examples; of all examples where they are averaged over an axis."""
    units = params["head"].shape[0]
    start = jax.lax.axis_index("model") * units
    bias = jax.lax.dynamic_slice_in_dim(params["bias"], start, units)
    hidden = jnp.tanh(x @ params["kernel"] + bias[None])
    outputs = jax.lax.psum(hidden @ params["head"], "model")
    value = jnp.mean(jnp.sum((outputs - y) ** 2, axis=1))
    return value if over is None else jax.lax.pmean(value, over)


mapped = functools.partial(many.mapped, (2, 4), ("data", "model"))


def trained(tx, step):
    """Some steps of a function of parameters, state and batch, compiled once."""
    params, _, _ = many.problem()
    state = tx.init(params)
    places = optax.tree.map_params(
        tx, lambda _, spec: spec, state, SPECS, transform_non_params=lambda _: P()
    )
    step = mapped(step, (SPECS, places, P("data"), P("data")), (SPECS, places))
    for number in range(STEPS):
        params, state = step(params, state, *many.problem(seed=number)[1:])
    return params


def step_of(tx, over=None):
    def step(params, state, x, y):
        grad_fn = lambda w: jax.grad(loss)(w, x, y, over)  # noqa: E731
        at = params
        if over is None:
            at = jax.tree.map(lambda w: jax.lax.pcast(w, "data", to="varying"), params)
        updates, state = tx.update(grad_fn(at), state, params, grad_fn=grad_fn)
        return optax.apply_updates(params, updates), state

    return step


@pytest.mark.parametrize("name", ALL)
def test_one_eps_for_all(name):
    tx = optimizer(name, axis_name="data", perturb_axis_name="data", sharded_axis_name="model")
    many.close(trained(tx, step_of(tx)), by_hand(RULES[name], STEPS))


@pytest.mark.parametrize("name", ["exact", "LookSAM", "Stable SAM"])
def test_an_eps_for_each_part_of_the_batch_or_a_loss_that_averages_itself(name):
    tx = optimizer(name, axis_name="data", sharded_axis_name="model")
    many.close(trained(tx, step_of(tx)), by_hand(RULES[name], STEPS, HALVES))
    tx = optimizer(name, sharded_axis_name=("model",))
    many.close(trained(tx, step_of(tx, over="data")), by_hand(RULES[name], STEPS))


def test_alternating():
    tx = asam_jax.alternating(optax.sgd(LR), many.RHO, sharded_axis_name="model")

    def step(params, state, x, y):
        for _ in range(2):
            updates, state = tx.update(jax.grad(loss)(params, x, y, "data"), state, params)
            params = optax.apply_updates(params, updates)
        return params, state

    many.close(trained(tx, step), by_hand(exact, STEPS))


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0, np.inf])
def test_perturbation(p):
    params, x, y = many.problem()
    grads = many.gradient(params, x, y)
    eps = mapped(
        functools.partial(asam_jax.perturbation, rho=0.5, p=p, sharded_axis_name="model"),
        (SPECS, SPECS),
        SPECS,
    )
    got = eps(params, jax.tree.map(np.float32, grads))
    many.close(got, oracle.perturbation(params, grads, rho=0.5, p=p))


@pytest.mark.parametrize("perturb", [None, "data"])
def test_value_and_grad(perturb):
    step = asam_jax.value_and_grad(
        loss,
        rho=many.RHO,
        axis_name="data",
        perturb_axis_name=perturb,
        sharded_axis_name="model",
    )
    params, x, y = many.problem()
    value, grads = mapped(step, (SPECS, P("data"), P("data")), (P(), SPECS))(params, x, y)
    groups = HALVES if perturb is None else many.WHOLE
    expected_value, expected = many.reference(params, x, y, groups)
    assert float(value) == pytest.approx(expected_value, rel=1e-5)
    many.close(grads, expected)


def test_gradients_that_are_remembered():
    """What is kept of a replicated leaf stays the same on all devices of the axis."""
    params, grads = many.problem(0)[0], many.problem(1)[0]
    tx = asam_jax.remember(0.5)

    def ascended(params, grads):
        _, state = tx.update(grads, tx.init(params))
        return asam_jax.momentum_ascent(params, state.direction, rho=0.5, sharded_axis_name="model")

    at = mapped(ascended, (SPECS, SPECS), SPECS)(params, grads)
    many.close(at, perturbed(params, grads, 0.5))


def test_it_is_refused_where_types_are_not_kept():
    params, _, _ = many.problem()
    eps = functools.partial(asam_jax.perturbation, rho=0.5, sharded_axis_name="model")
    with pytest.raises(ValueError, match=r"^sharded_axis_name.*check_vma"):
        mapped(eps, (SPECS, SPECS), SPECS, check_vma=False)(params, params)
    with pytest.raises(ValueError, match=r"^sharded_axis_name.*check_vma"):
        jax.vmap(eps, axis_name="model")(*[jax.tree.map(lambda w: w[None], params)] * 2)
    with pytest.raises(ValueError, match="sharded_axis_name: 'model' is not a mapped axis"):
        eps(params, params)
