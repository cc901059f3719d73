"""Low precision: computing in it, storing parameters in it, and float16 with a loss scale.

Tolerances are relative to a leaf's largest entry: bfloat16 keeps 8 bits and float16 11, so one
rounding costs 2^-9 and 2^-12, and a gradient through three layers some ten of them.
"""

import functools

import jax
import jax.numpy as jnp
import many
import numpy as np
import optax
import oracle
import pytest

import asam_jax

BFLOAT16, FLOAT16 = 10 * 2.0**-9, 10 * 2.0**-12
LR, SCALE = 0.1, 2.0**10


def computed_in(dtype, params, x, y):
    """The loss with every operation in `dtype`, returned in float32."""
    cast = lambda tree: jax.tree.map(lambda a: jnp.asarray(a, dtype), tree)  # noqa: E731
    return many.loss(cast(params), *cast((x, y))).astype(jnp.float32)


def as_float64(tree):
    return jax.tree.map(lambda a: np.asarray(a, np.float64), tree)


def test_float32_parameters_with_bfloat16_compute():
    params, x, y = many.problem()
    step = asam_jax.value_and_grad(functools.partial(computed_in, jnp.bfloat16), rho=many.RHO)
    value, grads = jax.jit(step)(params, x, y)
    expected_value, expected = many.reference(params, x, y, many.WHOLE)
    assert {g.dtype for g in grads.values()} == {jnp.dtype("float32")}
    assert float(value) == pytest.approx(expected_value, rel=BFLOAT16)
    many.close(grads, expected, tolerance=BFLOAT16)


def test_bfloat16_parameters():
    """eps and updates are bfloat16; the norm is not, so that eps is right to one rounding."""
    params, x, y = many.problem()
    stored = jax.tree.map(lambda a: jnp.asarray(a, jnp.bfloat16), params)
    grads = jax.tree.map(lambda a: jnp.asarray(a, jnp.bfloat16), many.gradient(params, x, y))
    eps = asam_jax.perturbation(stored, grads, rho=many.RHO)
    assert {e.dtype for e in eps.values()} == {jnp.dtype("bfloat16")}
    expected = oracle.perturbation(as_float64(stored), as_float64(grads), rho=many.RHO)
    for name, array in as_float64(eps).items():
        np.testing.assert_allclose(array, expected[name], rtol=2.0**-8)

    tx = asam_jax.asam(optax.sgd(LR), many.RHO)
    grad_fn = jax.grad(lambda w: computed_in(jnp.bfloat16, w, x, y))
    updates, _ = tx.update(grad_fn(stored), tx.init(stored), stored, grad_fn=grad_fn)
    assert {u.dtype for u in jax.tree.leaves(updates)} == {jnp.dtype("bfloat16")}
    _, ascended = many.reference(as_float64(stored), x, y, many.WHOLE)
    many.close(as_float64(updates), {n: -LR * g for n, g in ascended.items()}, 2 * BFLOAT16)


def test_wsam_rounds_bfloat16_once():
    """g + 4 (g' - g); its first term alone, -3 g, is as large as what they differ by."""
    g = jnp.linspace(1.0, 2.0, 99, dtype=jnp.bfloat16)
    new = (1.1 * g.astype(jnp.float32)).astype(jnp.bfloat16)
    got, _ = asam_jax.wsam_descent(0.8).perturbed(g, new, (), ())
    assert got.dtype == jnp.bfloat16
    first, second = as_float64((g, new))
    np.testing.assert_allclose(as_float64(got), first + 4 * (second - first), rtol=2.0**-8)


def test_a_momentum_that_float16_cannot_hold():
    w = jnp.array([3.0, 4.0], jnp.float16)
    momentum = jnp.array([3e-9, 4e-9], jnp.float32)
    at = asam_jax.momentum_ascent(w, momentum, rho=0.5, operator=asam_jax.identity())
    np.testing.assert_allclose(at, np.array([3.3, 4.4], np.float16))
    assert at.dtype == jnp.float16


def scaled_gradient(x, y, scale):
    """The gradient in float16 of the loss times `scale`, as float32."""
    return jax.grad(lambda w: computed_in(jnp.float16, w, x * 0.25, y * 0.25) * scale)


def test_unscaling_after_both_gradients_gives_the_unscaled_update():
    """Both passes are scaled, and one division after them serves."""
    params, x, y = many.problem()
    tx = optax.chain(asam_jax.sharpness_aware(many.RHO), optax.scale(1 / SCALE), optax.sgd(LR))

    @jax.jit
    def update(params):
        grad_fn = scaled_gradient(x, y, SCALE)
        return tx.update(grad_fn(params), tx.init(params), params, grad_fn=grad_fn)[0]

    _, grads = many.reference(params, x * 0.25, y * 0.25, many.WHOLE)
    many.close(update(params), {n: -LR * g for n, g in grads.items()}, FLOAT16)
