"""Cheap forms and refinements on eight devices: the steps that NumPy takes on one."""

import functools

import jax
import jax.numpy as jnp
import many
import numpy as np
import optax
import pytest
from forms import LR, STEPS, batch, by_hand, climbed, dot, friendly, mix, orthogonal, zeros
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import asam_jax

loss = functools.partial(many.loss, jnp)


def means(w, number, groups):
    """The mean gradient at w, and the mean over groups of their gradients at their own w + eps."""
    x, y = batch(number)
    g = many.gradient(w, x, y)
    own = [many.gradient(w, x[i], y[i]) for i in groups]
    ascended = [
        many.gradient(climbed(w, g_i), x[i], y[i]) for i, g_i in zip(groups, own, strict=True)
    ]
    return g, {n: np.mean([a[n] for a in ascended], axis=0) for n in g}


def looking(groups, memory, number, w, gradient):
    g, new = means(w, number, groups)
    if number % 2 == 0:
        memory["v"] = orthogonal(new, g)
        return new
    v = memory["v"]
    return mix(g, 0.4 * np.sqrt(dot(g, g) / dot(v, v)), v)


def gsam(groups, memory, number, w, gradient):
    g, new = means(w, number, groups)
    return mix(new, -0.3, orthogonal(g, new))


RULES = {
    "LookSAM": (looking, dict(every=2, descent=asam_jax.look_descent(0.4))),
    "GSAM": (gsam, dict(descent=asam_jax.gsam_descent(0.3))),
}
SHARES = {None: many.ONE_EACH, "data": [many.EXAMPLES]}


def step_of(tx):
    def step(params, state, x, y):
        own = params
        if jax.typeof(x).manual_axis_type.varying:
            own = jax.tree.map(lambda w: jax.lax.pcast(w, "data", to="varying"), params)
        grad_fn = lambda w: jax.grad(loss)(w, x, y)  # noqa: E731
        updates, state = tx.update(grad_fn(own), state, params, grad_fn=grad_fn)
        return optax.apply_updates(params, updates), state

    return step


@pytest.mark.parametrize("perturb", SHARES)
@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("mapped", ["pmap", "shard_map"])
def test_a_rule_of_descent_sees_the_whole_batch(name, perturb, mapped):
    rule, arguments = RULES[name]
    link = asam_jax.sharpness_aware(
        many.RHO, axis_name="data", perturb_axis_name=perturb, **arguments
    )
    tx = optax.chain(link, optax.sgd(LR))
    if mapped == "pmap":
        step = jax.pmap(
            step_of(tx), axis_name="data", in_axes=(None, None, 0, 0), out_axes=(None, None)
        )
        cut = lambda x, y: (x.reshape(8, 2, 6), y.reshape(8, 2, 4))  # noqa: E731
    else:
        step = jax.jit(
            jax.shard_map(
                step_of(tx),
                mesh=many.mesh((8,), ("data",)),
                in_specs=(P(), P(), P("data"), P("data")),
                out_specs=P(),
            )
        )
        cut = lambda x, y: (x, y)  # noqa: E731
    params = many.problem()[0]
    state = tx.init(params)
    for number in range(STEPS):
        params, state = step(params, state, *cut(*batch(number)))
    many.close(params, by_hand(functools.partial(rule, SHARES[perturb])))


def cut_over_devices(params):
    mesh = many.mesh((8,), ("data",))
    specs = {"kernel": P(None, "data"), "bias": P("data"), "head": P("data")}
    shardings = {name: NamedSharding(mesh, spec) for name, spec in specs.items()}
    return jax.device_put(params, shardings), NamedSharding(mesh, P("data")), shardings


def test_sharded_parameters_and_what_is_kept_stay_where_they_lie():
    params, over_data, shardings = cut_over_devices(many.problem()[0])
    link = asam_jax.sharpness_aware(many.RHO, ascent=asam_jax.friendly_ascent(0.8, 0.6))
    tx = optax.chain(link, optax.sgd(LR))
    step, state = jax.jit(step_of(tx)), jax.jit(tx.init)(params)
    for number in range(STEPS):
        params, state = step(params, state, *jax.device_put(batch(number), over_data))
    many.close(params, by_hand(friendly))
    for name, leaf in params.items():
        kept = optax.tree.get(state, "ema")[name]
        assert leaf.sharding.is_equivalent_to(shardings[name], leaf.ndim)
        assert kept.sharding.is_equivalent_to(shardings[name], leaf.ndim)


def test_momentum_ascent_under_pmap_shares_one_eps():
    """The gradient is averaged before update, as for SGD."""

    def rule(memory, number, w, gradient):
        memory["m"] = mix(
            gradient(climbed(w, memory.get("m", zeros(w)))), 0.9, memory.get("m", zeros(w))
        )
        return memory["m"]

    tx = optax.sgd(LR, momentum=0.9)

    @functools.partial(jax.pmap, axis_name="data", in_axes=(None, None, 0, 0), out_axes=None)
    def step(params, state, x, y):
        at = asam_jax.momentum_ascent(params, state, rho=many.RHO)
        grads = jax.lax.pmean(jax.grad(loss)(at, x, y), "data")
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    params = many.problem()[0]
    state = tx.init(params)
    for number in range(STEPS):
        x, y = batch(number)
        params, state = step(params, state, x.reshape(8, 2, 6), y.reshape(8, 2, 4))
    many.close(params, by_hand(rule))
