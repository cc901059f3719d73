"""What the devices exchange in a step, read from the compiled program."""

import functools
import math
import re

import jax
import jax.numpy as jnp
import many
import optax
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import asam_jax

# Leaves so large that losses and norms (a few scalars each) cannot be mistaken for parameters.
SHAPES = {"kernel": (64, 32), "bias": (32,), "head": (32, 16)}
SIZE = sum(math.prod(shape) for shape in SHAPES.values())
SCALARS = 64
COLLECTIVE = re.compile(
    r"= (.*?) (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(?:-start)?\("
)

loss = many.loss


def exchanged(step, *args):
    """Numbers that come out of each kind of collective, from the program after all passes."""
    text = jax.jit(step).lower(*args).compile().as_text()
    totals: dict[str, int] = {}
    for result, kind in COLLECTIVE.findall(text):
        for dimensions in re.findall(r"\w+\[([\d,]*)\]", result):
            count = math.prod(int(d) for d in dimensions.split(",") if d)
            totals[kind] = totals.get(kind, 0) + count
    return totals


def only_all_reduces(totals, times):
    """Asserts that parameters are summed so many times and nothing else of their size moves."""
    assert totals.keys() <= {"all-reduce"}, totals
    assert times * SIZE <= totals["all-reduce"] <= times * SIZE + SCALARS, (totals, SIZE)


def problem():
    params = {name: jnp.ones(shape) for name, shape in SHAPES.items()}
    return params, jnp.ones((16, 64)), jnp.ones((16, 16))


def mapped(gradient):
    """The step of momentum SGD with that gradient, over eight devices."""
    tx = optax.sgd(0.1, 0.9)

    def step(params, state, x, y):
        value, grads = gradient(params, x, y)
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state, value

    return many.over_data(step, (P(), P(), P("data"), P("data")))


@pytest.mark.parametrize(
    ("rho", "perturb", "times"),
    [(0.0, None, 1), (0.5, None, 1), (0.5, "data", 2)],
    ids=["sgd", "each device its own eps", "one eps for all"],
)
def test_shard_map(rho, perturb, times):
    params, x, y = problem()
    gradient = asam_jax.value_and_grad(loss, rho=rho, axis_name="data", perturb_axis_name=perturb)
    step = mapped(gradient)
    only_all_reduces(exchanged(step, params, optax.sgd(0.1, 0.9).init(params), x, y), times)


@pytest.mark.parametrize(("rho", "times"), [(0.0, 1), (0.5, 2)])
def test_jit_with_a_batch_cut_over_devices(rho, times):
    """There eps is global: the compiler sums a gradient for it."""
    params, x, y = problem()
    mesh = many.mesh((8,), ("data",))
    params = jax.device_put(params, NamedSharding(mesh, P()))
    x, y = jax.device_put((x, y), NamedSharding(mesh, P("data")))
    gradient = asam_jax.value_and_grad(loss, rho=rho)
    only_all_reduces(exchanged(gradient, params, x, y), times)


def test_eps_of_cut_parameters_exchanges_scalars_alone():
    """Under FSDP the perturbation itself moves no parameter: what a norm needs."""
    mesh = many.mesh((8,), ("data",))
    params, _, _ = problem()
    shards = {name: NamedSharding(mesh, P("data")) for name in params}
    cut = jax.device_put(params, shards)
    totals = exchanged(functools.partial(asam_jax.perturbation, rho=0.5), cut, cut)
    assert totals.keys() == {"all-reduce"} and totals["all-reduce"] <= SCALARS
