"""Losses, counts, batches and operators as people hand them to the measures of sharpness."""

import dataclasses
import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import asam_jax
from asam_jax import _programs

W, X = jnp.array([0.7, -0.4]), np.arange(16, dtype=np.float32).reshape(8, 2) / 8
MEASURES = {
    "sharpness": functools.partial(asam_jax.sharpness, rho=0.1),
    "maximizer": functools.partial(asam_jax.maximizer, rho=0.1),
    "average_sharpness": functools.partial(
        asam_jax.average_sharpness, sigma=0.1, key=jax.random.key(0)
    ),
}


def square(w, x):
    return jnp.mean(jnp.square(x @ w))


def test_a_loss_is_read_anew_in_each_call_and_compiled_once():
    """What it closes over may have changed: an array, a number, an attribute."""

    class Loss:
        shift = 0.0

        def __call__(self, w, x):
            return jnp.mean((x @ w - center["mean"] - self.shift) ** 2)

    def closed(w, x, mean):
        residual = x @ w - mean
        grads = 2 * x.T @ residual / len(x)
        eps = 0.1 * grads / np.linalg.norm(grads)
        return np.mean((x @ (w + eps) - mean) ** 2) - np.mean(residual**2)

    center, loss = {"mean": jnp.array(0.0)}, Loss()
    w, x = np.array([0.7, -0.4], np.float32), np.arange(16, dtype=np.float32).reshape(8, 2) / 8
    measure = functools.partial(asam_jax.sharpness, loss, w, x, operator=asam_jax.identity())
    np.testing.assert_allclose(measure(rho=0.1), closed(w, x, 0.0), rtol=1e-4)
    compiled = _programs._compiled.cache_info().misses
    center["mean"] = jnp.array(3.0)
    np.testing.assert_allclose(measure(rho=0.1), closed(w, x, 3.0), rtol=1e-4)
    assert _programs._compiled.cache_info().misses == compiled  # an array is an argument
    loss.shift = 1.0
    np.testing.assert_allclose(measure(rho=0.1), closed(w, x, 4.0), rtol=1e-4)


@dataclasses.dataclass
class Scaled:
    """No hash, as dataclasses have it."""

    factor: float = 0.5

    def __call__(self, w, x):
        return self.factor * square(w, x)


class Weighted(eqx.Module):
    weight: jax.Array

    def __call__(self, w, x):
        return jnp.mean(self.weight * jnp.square(x @ w))


@pytest.mark.parametrize("measure", MEASURES.values(), ids=MEASURES)
def test_losses_without_a_hash(measure):
    expected = 0.5 * np.asarray(jax.tree.leaves(measure(square, W, X))[-1])
    for loss in (Scaled(), Weighted(jnp.full(8, 0.5))):
        np.testing.assert_allclose(jax.tree.leaves(measure(loss, W, X))[-1], expected, rtol=1e-4)


@pytest.mark.parametrize("measure", MEASURES.values(), ids=MEASURES)
def test_losses_that_are_no_scalar(measure):
    cases = {
        r"got shape \(8,\) of float32; take the mean": lambda w, x: jnp.square(x @ w),
        r"got a tuple; return the loss alone": lambda w, x: (square(w, x), {}),
        r"got int32, which is not real": lambda w, x: jnp.sum(x @ w > 0),
        r"got None": lambda w, x: None,
    }
    for message, loss in cases.items():
        with pytest.raises(TypeError, match=f"loss_fn must return a scalar.*{message}"):
            measure(loss, W, X)


def test_counts_of_numpy_and_jax():
    """The mean over groups is the mean of the groups' own values."""
    two = np.mean([asam_jax.sharpness(square, W, X[i : i + 2], rho=0.1) for i in (0, 2, 4, 6)])
    for m in (2, np.int32(2), np.int64(2), jnp.array(2)):
        np.testing.assert_allclose(asam_jax.sharpness(square, W, X, rho=0.1, m=m), two, rtol=1e-5)
    for bad in (True, 2.0, np.float32(2), 3):
        with pytest.raises(ValueError, match="m must be a positive integer that divides"):
            asam_jax.sharpness(square, W, X, rho=0.1, m=bad)
    args = dict(sigma=0.1, key=jax.random.key(0))
    np.testing.assert_array_equal(
        asam_jax.average_sharpness(square, W, X, samples=np.int64(4), **args),
        asam_jax.average_sharpness(square, W, X, samples=4, **args),
    )


@pytest.mark.parametrize("name", ["sharpness", "average_sharpness"])
def test_a_batch_of_no_examples(name):
    with pytest.raises(ValueError, match="batch must hold an example at least"):
        MEASURES[name](square, W, X[:0])


def test_an_operator_of_numpy():
    operator = lambda w: np.abs(np.asarray(w)) + 0.01  # noqa: E731
    expected = asam_jax.sharpness(square, W, X, rho=0.1, operator=asam_jax.elementwise())
    np.testing.assert_allclose(
        asam_jax.sharpness(square, W, X, rho=0.1, operator=operator), expected, rtol=1e-5
    )


def test_a_frozen_leaf_whose_gradient_is_no_number():
    params = {"frozen": jnp.zeros(2), "head": jnp.ones(1)}
    operator = asam_jax.masked(asam_jax.identity(), {"frozen": False, "head": True})

    def loss(w, x):  # the root has no derivative at 0
        return jnp.sum(jnp.sqrt(w["frozen"])) + jnp.sum(w["head"])

    for steps in (1, 3):
        value = asam_jax.sharpness(loss, params, X, rho=0.5, operator=operator, steps=steps)
        np.testing.assert_allclose(value, 0.5, rtol=1e-6)


def test_the_error_of_an_average_falls_with_the_draws():
    """To sigma^2 / 2 times the trace of T H T, from a rise of a millionth of the loss."""

    def loss(w, x):
        logits = x @ w
        return jnp.mean(jax.nn.logsumexp(logits, axis=-1) - logits[:, 0])

    w = 0.1 * jax.random.normal(jax.random.key(1), (5, 10))
    x = jax.random.normal(jax.random.key(0), (32, 5))
    t = np.abs(np.asarray(w, np.float64)) + 0.01
    p = np.asarray(jax.nn.softmax(x @ w, axis=-1), np.float64)
    diagonal = np.einsum("ni,nc->ic", np.asarray(x, np.float64) ** 2, p * (1 - p)) / 32
    expected = 0.01**2 / 2 * np.sum(t**2 * diagonal)
    value = asam_jax.average_sharpness(loss, w, x, sigma=0.01, key=jax.random.key(7), samples=1000)
    np.testing.assert_allclose(value, expected, rtol=0.05)
