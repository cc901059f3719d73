"""Bad input: every message names the argument and says what to do."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import asam_jax

W = {"w": jnp.ones((2, 3)), "bias": jnp.zeros(3)}
SGD = optax.sgd(0.1)


def loss(p, x=2.0):
    x = x * jnp.ones((4, 2))
    return jnp.sum(x @ p["w"]) + jnp.sum(p["bias"])


@pytest.mark.parametrize("rho", [-0.1, np.float32(-1), float("nan")])
@pytest.mark.parametrize(
    "call",
    [
        lambda rho: asam_jax.perturbation(W, W, rho=rho),
        lambda rho: asam_jax.value_and_grad(loss, rho=rho),
        lambda rho: asam_jax.sharpness_aware(rho),
        lambda rho: asam_jax.asam(SGD, rho),
        lambda rho: asam_jax.sam(SGD, rho),
        lambda rho: asam_jax.alternating(SGD, rho),
        lambda rho: asam_jax.sharpness(loss, W, jnp.ones((4, 2)), rho=rho),
    ],
)
def test_negative_rho(call, rho):
    with pytest.raises(ValueError, match="rho must be at least 0"):
        call(rho)


def test_a_negative_concrete_schedule_value():
    tx = asam_jax.asam(SGD, optax.constant_schedule(-1.0))
    with pytest.raises(ValueError, match="rho must be at least 0"):
        tx.update(W, tx.init(W), W, grad_fn=jax.grad(loss))


@pytest.mark.parametrize("p", [0.99, 0, -2.0, float("nan")])
@pytest.mark.parametrize(
    "call",
    [
        lambda p: asam_jax.perturbation(W, W, rho=0.1, p=p),
        lambda p: asam_jax.value_and_grad(loss, rho=0.1, p=p),
        lambda p: asam_jax.asam(SGD, p=p),
        lambda p: asam_jax.sam(SGD, p=p),
        lambda p: asam_jax.alternating(SGD, 0.1, p=p),
        lambda p: asam_jax.sharpness(loss, W, jnp.ones((4, 2)), rho=0.1, p=p),
    ],
)
def test_p_below_one(call, p):
    with pytest.raises(ValueError, match="p must be at least 1"):
        call(p)


@pytest.mark.parametrize(
    "call",
    [asam_jax.elementwise, asam_jax.filterwise, lambda eta: asam_jax.asam(SGD, eta=eta)],
)
def test_negative_eta(call):
    with pytest.raises(ValueError, match="eta must be at least 0"):
        call(-0.01)


def test_an_operator_maker_in_place_of_an_operator():
    with pytest.raises(TypeError, match="eta must be a number"):
        asam_jax.perturbation(W, W, rho=0.1, operator=asam_jax.elementwise)


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: asam_jax.value_and_grad(3, rho=0.1), "fun"),
        (lambda: asam_jax.value_and_grad(loss, rho=0.1, operator=0.5), "operator"),
        (lambda: asam_jax.sharpness_aware(0.1, operator="elementwise"), "operator"),
        (lambda: asam_jax.elementwise(adapt=True), "adapt"),
        (lambda: asam_jax.filterwise(filter_axes=(0, 1)), "filter_axes"),
        (lambda: asam_jax.masked(None, True), "operator"),
        (lambda: asam_jax.asam(0.1), "base"),
        (lambda: asam_jax.sam(optax.sgd), "base"),
        (lambda: asam_jax.alternating("sgd", 0.1), "base"),
        (lambda: asam_jax.sharpness_aware("0.5"), "rho"),
        (lambda: asam_jax.sharpness_aware(jnp.ones(2)), "rho"),
    ],
)
def test_wrong_types(call, name):
    with pytest.raises(TypeError, match=f"^{name} must be"):
        call()


def test_trees_of_different_structure_or_shape():
    with pytest.raises(ValueError, match="grads must have the tree structure of params"):
        asam_jax.perturbation(W, {"w": W["w"]}, rho=0.1)
    with pytest.raises(
        ValueError, match=r"grads\['w'\] has shape \(3, 2\).*params\['w'\].*\(2, 3\)"
    ):
        asam_jax.perturbation(W, {**W, "w": W["w"].T}, rho=0.1)


def test_operators_that_return_something_else():
    with pytest.raises(ValueError, match="operator must return one scale for each leaf"):
        asam_jax.perturbation(W, W, rho=0.1, operator=lambda p: [p["w"]])
    with pytest.raises(
        ValueError, match=r"operator returned a scale of shape \(3,\) at params\['w'\]"
    ):
        asam_jax.perturbation(W, W, rho=0.1, operator=lambda p: {**p, "w": jnp.ones(3)})


def test_missing_grad_fn_and_params():
    tx = asam_jax.asam(SGD)
    with pytest.raises(ValueError, match=r"grad_fn is missing.*asam_jax\.alternating"):
        tx.update(W, tx.init(W), W)
    with pytest.raises(TypeError, match="grad_fn must be callable"):
        tx.update(W, tx.init(W), W, grad_fn=W)
    with pytest.raises(ValueError, match="params is missing"):
        tx.update(W, tx.init(W), grad_fn=jax.grad(loss))
    other = asam_jax.alternating(SGD, 0.5)
    with pytest.raises(ValueError, match="params is missing"):
        other.update(W, other.init(W))


def test_grad_fn_that_returns_something_else():
    tx = asam_jax.asam(SGD)

    def update(grad_fn):
        return tx.update(W, tx.init(W), W, grad_fn=grad_fn)

    with pytest.raises(
        ValueError, match=r"grad_fn's result must have the tree structure of updates"
    ):
        update(lambda p: {"w": p["w"]})
    with pytest.raises(ValueError, match=r"jax\.grad\(loss\), not jax\.value_and_grad"):
        update(jax.value_and_grad(loss))
    with pytest.raises(ValueError, match=r"grad_fn's result\['w'\] has shape"):
        update(lambda p: {**p, "w": p["w"].T})
    with pytest.raises(TypeError, match=r"grad_fn's result\['bias'\] has dtype bfloat16"):
        update(lambda p: jax.tree.map(lambda x: x.astype(jnp.bfloat16), p))


@pytest.mark.parametrize("m", [3, 0, -1, 5, 2.0, True])
def test_m_that_does_not_divide_the_batch(m):
    with pytest.raises(ValueError, match="m must be a positive integer that divides the batch"):
        asam_jax.sharpness(loss, W, jnp.ones((4, 2)), rho=0.1, m=m)


def test_batches_without_examples_in_common():
    def pair(p, b):
        return loss(p, b[0]) + jnp.sum(b[1])

    for bad in ((jnp.ones((4, 2)), jnp.ones(3)), (jnp.ones((4, 2)), jnp.float32(1.0)), ()):
        with pytest.raises(ValueError, match="batch must hold arrays with one leading axis"):
            asam_jax.sharpness(pair, W, bad, rho=0.1)


@pytest.mark.parametrize("steps", [0, -1, 1.5, True])
def test_steps_below_one(steps):
    with pytest.raises(ValueError, match="steps must be a positive integer"):
        asam_jax.sharpness(loss, W, jnp.ones((4, 2)), rho=0.1, steps=steps)
