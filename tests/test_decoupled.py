"""Decoupled WSAM against its published steps in NumPy float64, on one device and on several."""

import functools

import jax
import jax.numpy as jnp
import many
import numpy as np
import optax
import oracle
import pytest

import asam_jax

GAMMA, LR, STEPS = 0.7, 0.05, 4
loss = functools.partial(many.loss, jnp)


def by_hand(rate):
    """Momentum 0.9 along g alone; then w -= rate(t) * gamma / (1 - gamma) * (g' - g)."""
    w = {name: a.astype(np.float64) for name, a in many.problem()[0].items()}
    trace = {name: np.zeros_like(a) for name, a in w.items()}
    for number in range(STEPS):
        _, x, y = many.problem(seed=number)
        g = many.gradient(w, x, y)
        eps = oracle.perturbation(w, g, rho=many.RHO)
        new = many.gradient({name: w[name] + eps[name] for name in w}, x, y)
        for name in w:
            trace[name] = 0.9 * trace[name] + g[name]
            sharpness = new[name] - g[name]
            w[name] = w[name] - LR * trace[name] - rate(number) * GAMMA / (1 - GAMMA) * sharpness
    return w


@pytest.mark.parametrize(
    "rate", [LR, optax.linear_schedule(LR, 0.0, STEPS)], ids=["lr", "schedule"]
)
def test_it_takes_the_published_steps(rate):
    tx = asam_jax.decoupled_wsam(optax.sgd(LR, momentum=0.9), rate, many.RHO, gamma=GAMMA)

    @jax.jit
    def step(params, state, x, y):
        grad_fn = lambda w: jax.grad(loss)(w, x, y)  # noqa: E731
        updates, state = tx.update(grad_fn(params), state, params, grad_fn=grad_fn)
        return optax.apply_updates(params, updates), state

    params = jax.tree.map(jnp.asarray, many.problem()[0])
    state = tx.init(params)
    for number in range(STEPS):
        params, state = step(params, state, *many.problem(seed=number)[1:])
    at = (lambda number: float(rate(number))) if callable(rate) else (lambda number: rate)
    many.close(params, by_hand(at))
    assert int(state.count) == STEPS


def test_with_plain_descent_it_is_the_coupled_form_and_between_ascents_base_alone():
    params, x, y = many.problem()
    grad_fn = jax.jit(lambda w: jax.grad(loss)(w, x, y))
    tx = asam_jax.decoupled_wsam(optax.sgd(LR), LR, many.RHO, gamma=GAMMA)
    coupled = asam_jax.sharpness_aware(many.RHO, descent=asam_jax.wsam_descent(GAMMA))
    coupled = optax.chain(coupled, optax.sgd(LR))
    for climb in (True, False):
        got, expected = (
            t.update(grad_fn(params), t.init(params), params, grad_fn=grad_fn, climb=climb)[0]
            for t in (tx, coupled)
        )
        many.close(got, jax.tree.map(np.asarray, expected))


def test_each_device_has_its_own_eps_and_all_share_the_step():
    params, x, y = many.problem()
    groups = [many.EXAMPLES[:8], many.EXAMPLES[8:]]
    tx = asam_jax.decoupled_wsam(optax.sgd(LR), LR, many.RHO, gamma=GAMMA, axis_name="devices")

    def on_device(x, y):
        grad_fn = lambda w: jax.grad(loss)(w, x, y)  # noqa: E731
        return tx.update(grad_fn(params), tx.init(params), params, grad_fn=grad_fn)[0]

    halves = (x.reshape(2, 8, -1), y.reshape(2, 8, -1))
    updates = jax.jit(jax.vmap(on_device, axis_name="devices"))(*halves)
    plain, new = many.gradient(params, x, y), many.reference(params, x, y, groups)[1]
    expected = {n: -LR * (plain[n] + GAMMA / (1 - GAMMA) * (new[n] - plain[n])) for n in params}
    for half in (0, 1):
        many.close(jax.tree.map(lambda a, i=half: a[i], updates), expected)


def test_bad_input():
    with pytest.raises(ValueError, match="gamma must be less than 1"):
        asam_jax.decoupled_wsam(optax.sgd(0.1), 0.1, 0.5, gamma=1.0)
    with pytest.raises(TypeError, match="base must be an optax"):
        asam_jax.decoupled_wsam(0.1, 0.1, 0.5)
