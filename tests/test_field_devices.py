"""Steps on many devices as people write them, beyond those of test_mapped.py."""

import jax
import jax.numpy as jnp
import many
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P

import asam_jax

AXES = dict(axis_name="data", perturb_axis_name="data")


def mapped(function):
    """On eight devices, each with its share of all arguments but the first."""

    def on_devices(params, *batch):
        specs = (P(), *(P("data") for _ in batch))
        mesh = many.mesh((8,), ("data",))
        f = jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=P())
        return jax.jit(f)(params, *batch)

    return on_devices


def test_a_loss_over_the_tokens_of_all_devices():
    """g03: psum(sum) / psum(count) is the final loss, for which axis_name is left out."""
    params, x, y = many.problem()
    real = np.float32(np.arange(16) % 3 > 0)

    def total(w, x, y, real):
        hidden = jnp.tanh(x @ w["kernel"] + w["bias"][None])
        error = jnp.sum((hidden @ w["head"] - y) ** 2, axis=1)
        return jnp.sum(error * real), jnp.sum(real)

    def token_loss(*inputs):
        return jnp.divide(*jax.lax.psum(total(*inputs), "data"))

    value, grads = mapped(asam_jax.value_and_grad(token_loss, rho=many.RHO))(params, x, y, real)
    kept = real > 0
    expected_value, expected = many.reference(params, x[kept], y[kept], [np.arange(kept.sum())])
    np.testing.assert_allclose(value, expected_value, rtol=1e-6)
    many.close(grads, expected)
    with pytest.raises(ValueError, match=r"leave axis_name out.*jax\.lax\.pcast\(params, "):
        mapped(asam_jax.value_and_grad(token_loss, rho=many.RHO, **AXES))(params, x, y, real)


def test_a_decision_of_all_devices_is_taken_by_each():
    """g02: each by its own gradient took different branches, whose collectives never met."""
    params, x, y = many.problem()
    tx = asam_jax.sharpness_aware(many.RHO, **AXES)

    def step(params, x, y):
        grad_fn = lambda w: jax.grad(many.loss)(w, x, y)  # noqa: E731
        grads = grad_fn(many.varying(params, x, "data"))
        perturb = jax.lax.pmean(jnp.mean(x**2), "data") > 1.0
        return tx.update(grads, tx.init(params), params, grad_fn=grad_fn, perturb=perturb)[0]

    for factor in (0.5, 2.0):
        scaled = np.float32(factor) * x
        expected = many.gradient(params, scaled, y)
        if np.mean(scaled**2) > 1.0:
            expected = many.reference(params, scaled, y, many.WHOLE)[1]
        many.close(mapped(step)(params, scaled, y), expected)


@pytest.mark.parametrize(
    "ascent", [asam_jax.friendly_ascent(0.8, 0.6), optax.ema(0.5, debias=False)]
)
def test_each_device_keeps_its_own_state_between_perturbed_steps(ascent):
    """Of both branches of `every`, in types that vary; the directions stay along the gradient."""
    params, x, y = many.problem()
    tx = asam_jax.sharpness_aware(many.RHO, every=2, ascent=ascent, axis_name="data")

    def steps(params, x, y):
        grad_fn = lambda w: jax.grad(many.loss)(w, x, y)  # noqa: E731
        grads = grad_fn(many.varying(params, x, "data"))
        state, updates = tx.init(params), []
        for _ in range(3):
            new, state = tx.update(grads, state, params, grad_fn=grad_fn)
            updates.append(new)
        return updates

    perturbed = many.reference(params, x, y, many.ONE_EACH)[1]
    expected = [perturbed, many.gradient(params, x, y), perturbed]
    for got, right in zip(mapped(steps)(params, x, y), expected, strict=True):
        many.close(got, right)


def test_sharded_gradients_that_are_remembered():
    """What is kept of a replicated leaf stays the same on all devices of the axis."""
    params, grads = many.problem(0)[0], many.problem(1)[0]
    specs = {"kernel": P(None, "model"), "bias": P(), "head": P("model")}
    tx = asam_jax.remember(0.5)

    def ascended(params, grads):
        _, state = tx.update(grads, tx.init(params))
        return asam_jax.momentum_ascent(
            params, state.direction, rho=0.5, sharded_axis_name="model"
        )

    mesh = many.mesh((8,), ("model",))
    cut = jax.shard_map(ascended, mesh=mesh, in_specs=(specs, specs), out_specs=specs)
    at = jax.tree.map(jnp.add, params, asam_jax.perturbation(params, grads, rho=0.5))
    many.close(jax.jit(cut)(params, grads), at)
