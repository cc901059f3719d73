"""Bad input: every message names the argument, what was wrong and what to do."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import asam_jax

W = {"w": jnp.ones((2, 3)), "bias": jnp.zeros(3)}
SGD = optax.sgd(0.1)


SCHEDULE = optax.constant_schedule(-1.0)


def loss(p, x=2.0):
    x = x * jnp.ones((4, 2))
    return jnp.sum(x @ p["w"]) + jnp.sum(p["bias"])


GRADIENT = jax.grad(loss)


def updated(tx, grad_fn=GRADIENT):
    return tx.update(W, tx.init(W), W, grad_fn=grad_fn)


def eps(grads, **keywords):
    return asam_jax.perturbation(W, grads, rho=0.1, **keywords)


MAKERS = {
    "perturbation": functools.partial(asam_jax.perturbation, W, W),
    "value_and_grad": functools.partial(asam_jax.value_and_grad, loss),
    "sharpness_aware": asam_jax.sharpness_aware,
    "asam": functools.partial(asam_jax.asam, SGD),
    "sam": functools.partial(asam_jax.sam, SGD),
    "alternating": functools.partial(asam_jax.alternating, SGD),
    "decoupled_wsam": functools.partial(asam_jax.decoupled_wsam, SGD, 0.1),
    "momentum_ascent": functools.partial(asam_jax.momentum_ascent, W, W),
    "sharpness": functools.partial(asam_jax.sharpness, loss),
    "maximizer": functools.partial(asam_jax.maximizer, loss),
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_rho_p_and_operator(make):
    for rho in (-0.1, np.float32(-1), float("nan")):
        with pytest.raises(ValueError, match=r"^rho must be at least 0"):
            make(rho=rho)
    for rho in ("0.5", jnp.ones(2), None):
        with pytest.raises(TypeError, match=r"^rho must be a number"):
            make(rho=rho)
    for p in (0.99, 0, float("nan")):
        with pytest.raises(ValueError, match=r"^p must be at least 1"):
            make(rho=0.1, p=p)
    with pytest.raises(TypeError, match=r"^rho must be a number"):
        jax.eval_shape(lambda rho: make(rho=rho) and None, jnp.ones(1))
    with pytest.raises(TypeError, match=r"^p must be a number"):
        make(rho=0.1, p="2")
    with pytest.raises(TypeError, match=r"^p must be a Python number, got a traced one"):
        jax.eval_shape(lambda p: make(rho=0.1, p=p) and None, 2.0)
    with pytest.raises(TypeError, match=r"must be called: operator=asam_jax\.elementwise\(") as e:
        make(rho=0.1, operator=asam_jax.elementwise)
    assert len(str(e.value)) < 200  # no tree is printed
    with pytest.raises(TypeError, match=r"^operator must be callable"):
        make(rho=0.1, operator=0.5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: asam_jax.elementwise(-0.01), "eta must be at least 0"),
        (lambda: asam_jax.filterwise(-0.01), "eta must be at least 0"),
        (lambda: asam_jax.asam(SGD, eta=-0.01), "eta must be at least 0"),
        (lambda: asam_jax.elementwise(W), "eta must be a number"),
        (lambda: asam_jax.asam(0.1), "base must be an optax"),
        (lambda: asam_jax.sam(optax.sgd), "base must be an optax"),
        (lambda: asam_jax.alternating("sgd", 0.1), "base must be an optax"),
        (lambda: asam_jax.decoupled_wsam(0.1, 0.1, 0.5), "base must be an optax"),
        (lambda: asam_jax.decoupled_wsam(SGD, 0.1, 0.5, gamma=1.0), "gamma must be .*less than 1"),
        (lambda: asam_jax.sharpness_aware(0.5, every=0), "every must be an integer of at least 1"),
        (lambda: asam_jax.sharpness_aware(0.5, every=2.5), "every must be an integer of at least"),
        (lambda: asam_jax.gsam_descent(-1.0), "alpha must be at least 0"),
        (lambda: asam_jax.wsam_descent(1.0), "gamma must be .*less than 1"),
        (lambda: asam_jax.looksam_descent(np.nan), "weight must be at least 0"),
        (lambda: asam_jax.friendly_ascent(-1.0), "sigma must be at least 0"),
        (lambda: asam_jax.friendly_ascent(decay=1.5), "decay must be at least 0 and"),
        (lambda: asam_jax.remember(-0.1), "decay must be at least 0"),
        (lambda: asam_jax.value_and_grad(loss, rho=SCHEDULE), r".* rho=schedule\(step\)"),
        (lambda: asam_jax.perturbation(W, W, rho=SCHEDULE), r".* rho=schedule\(step\)"),
        (lambda: updated(asam_jax.asam(SGD, SCHEDULE)), "rho must be at least 0"),
        (lambda: eps({"w": W["w"]}), "grads must have the tree structure of params"),
        (
            lambda: eps({**W, "w": W["w"].T}),
            r"grads\['w'\] has shape \(3, 2\).*params\['w'\].*\(2, 3\)",
        ),
        (
            lambda: eps(W, operator=lambda p: [p["w"]]),
            "operator must return a tree like params",
        ),
        (
            lambda: eps(W, operator=lambda p: {**p, "w": jnp.ones(3)}),
            r"operator returned a scale of shape \(3,\) at params\['w'\]",
        ),
    ],
)
def test_arguments(call, message):
    with pytest.raises((ValueError, TypeError), match=f"^{message}"):
        call()


def test_missing_grad_fn_and_params():
    tx = asam_jax.asam(SGD)
    with pytest.raises(ValueError, match=r"grad_fn is missing.*asam_jax\.alternating"):
        tx.update(W, tx.init(W), W)
    with pytest.raises(ValueError, match="params is missing"):
        tx.update(W, tx.init(W), grad_fn=jax.grad(loss))
    other = asam_jax.alternating(SGD, 0.5)
    with pytest.raises(ValueError, match="params is missing"):
        other.update(W, other.init(W))


@pytest.mark.parametrize(
    ("grad_fn", "message"),
    [
        (jax.value_and_grad(loss), r"append \[1\]"),
        (jax.grad(lambda p: (loss(p), {"mean": jnp.ones(2)}), has_aux=True), r"append \[0\]"),
        (lambda p: {"w": p["w"]}, "grad_fn's result must have the tree structure of updates"),
        (lambda p: {**p, "w": p["w"].T}, r"grad_fn's result\['w'\] has shape"),
        (
            lambda p: jax.tree.map(lambda x: x.astype(jnp.bfloat16), p),
            r"grad_fn's result\['bias'\] has dtype bfloat16",
        ),
    ],
)
def test_a_grad_fn_that_returns_something_else(grad_fn, message):
    with pytest.raises((ValueError, TypeError), match=message):
        updated(asam_jax.asam(SGD), grad_fn)


def test_leaves_that_are_not_real_floating_point():
    for bad in (jnp.array([1, 2]), jnp.array([1 + 2j]), jnp.array([True])):
        params = {"w": jnp.ones(2), "step": bad}
        match = rf"params\['step'\] is of {bad.dtype}: only real floating.*eqx.partition"
        with pytest.raises(TypeError, match=match):
            asam_jax.perturbation(params, params, rho=0.5)
        with pytest.raises(TypeError, match=match):
            asam_jax.value_and_grad(lambda p: jnp.sum(p["w"]), rho=0.5)(params)


def test_a_whole_model_as_parameters():
    model = eqx.nn.MLP(3, 1, 4, 1, key=jax.random.key(0))
    of_model = lambda m, x: jnp.mean(jax.vmap(m)(x) ** 2)  # noqa: E731
    tx, x = asam_jax.asam(SGD), jnp.ones((4, 3))
    for call in (
        lambda: asam_jax.value_and_grad(of_model, rho=0.1)(model, x),
        lambda: tx.update(model, tx.init(model), model, grad_fn=lambda m: m),
    ):
        with pytest.raises(TypeError, match=r"params\.activation is of .*eqx\.partition"):
            call()


@pytest.mark.parametrize(
    "make", [asam_jax.sharpness_aware, functools.partial(asam_jax.value_and_grad, loss)]
)
def test_names_of_axes(make):
    with pytest.raises(ValueError, match=r"perturb_axis_name holds \['inner'\], which axis_name="):
        make(rho=0.5, axis_name="outer", perturb_axis_name=("outer", "inner"))
    with pytest.raises(ValueError, match=r"perturb_axis_name holds \['data'\].* add"):
        make(rho=0.5, perturb_axis_name="data")
    with pytest.raises(ValueError, match=r"sharded_axis_name and axis_name both hold \['data'\]"):
        make(rho=0.5, axis_name="data", sharded_axis_name="data")


def test_axes_that_are_not_mapped():
    tx = asam_jax.sharpness_aware(0.5, axis_name="batch")
    step = asam_jax.value_and_grad(loss, rho=0.5, axis_name="batch")
    for call in (
        lambda x: tx.update(W, tx.init(W), W, grad_fn=jax.grad(loss)),
        lambda x: step(W, x),
    ):
        with pytest.raises(ValueError, match="axis_name: 'batch' is not a mapped axis here"):
            jax.vmap(call, axis_name="data")(jnp.ones(2))
