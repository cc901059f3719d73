"""The link among optax's wrappers, line searches and schedules, and under flax.nnx.Optimizer."""

import inspect

import chex
import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import asam_jax

A, W, RHO, LR = np.array([1.0, 2.0, 0.5]), np.array([3.0, -2.0, 1.0]), 0.3, 0.1
SAM = dict(rho=RHO, operator=asam_jax.identity())


def gradient(w):
    """Of sum(a w^2) / 2."""
    return A * w


def after_steps(w, steps=1):
    """SAM by hand, in float64."""
    for _ in range(steps):
        g = gradient(w)
        w = w - LR * gradient(w + RHO * g / np.linalg.norm(g))
    return w


def grad_fn(w):
    return jnp.asarray(A, jnp.float32) * w


def array(w=W):
    return jnp.asarray(w, jnp.float32)


class Model(nnx.Module):
    def __init__(self):
        self.w = nnx.Param(array())
        self.mean = nnx.BatchStat(jnp.ones(2))


def model_loss(model):
    return jnp.sum(jnp.asarray(A, jnp.float32) * model.w[...] ** 2) / 2 + jnp.sum(model.mean[...])


@pytest.mark.usefixtures("flax_promotes")
@pytest.mark.parametrize(
    ("form", "graph"),
    [(nnx.as_pure, True), (lambda grads: grads, True), (lambda grads: grads, False)],
)
def test_nnx_grad_as_grad_fn(form, graph):
    """Boxed gradients of a whole model, too, of which the optimizer takes its own."""
    model = Model()
    tx = optax.chain(asam_jax.sharpness_aware(**SAM), optax.sgd(LR, momentum=0.0))
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param, graph=graph)

    def grad_fn(params):
        copy = nnx.clone(model)
        nnx.update(copy, params)
        return form(nnx.grad(model_loss, graph=graph)(copy))

    for _ in range(2):
        optimizer.update(model, nnx.grad(model_loss, graph=graph)(model), grad_fn=grad_fn)
    np.testing.assert_allclose(model.w[...], after_steps(W, 2), rtol=1e-5)

    # The momentum in nnx.Optimizer's state is boxed, too: the last gradient, for sgd's 0.
    at = asam_jax.momentum_ascent(nnx.state(model, nnx.Param), optimizer.opt_state, **SAM)
    g, w = gradient(after_steps(W)), after_steps(W, 2)
    g = gradient(after_steps(W) + RHO * g / np.linalg.norm(g))
    np.testing.assert_allclose(at["w"][...], w + RHO * g / np.linalg.norm(g), rtol=1e-5)


def test_other_containers_of_the_same_leaves():
    params = {"w": array()}
    tx = asam_jax.sharpness_aware(**SAM)
    updates = {"w": grad_fn(array())}
    for form in (flax.core.freeze, lambda tree: jax.tree.map(lambda leaf: nnx.Param(leaf), tree)):
        new, _ = tx.update(
            updates, tx.init(params), params, grad_fn=lambda p, f=form: f({"w": grad_fn(p["w"])})
        )
        assert type(new) is dict
        np.testing.assert_allclose(W - LR * new["w"], after_steps(W), rtol=1e-6)
    for wrong in (lambda p: {"v": p["w"]}, lambda p: (0.0, p), lambda p: {**p, "v": p["w"]}):
        with pytest.raises(ValueError, match="must have the tree structure of updates"):
            tx.update(updates, tx.init(params), params, grad_fn=wrong)


def quartic(w):
    return jnp.sum((w - 1) ** 4)


@pytest.mark.usefixtures("flax_promotes")
@pytest.mark.parametrize(
    "tx",
    [
        asam_jax.asam(optax.lbfgs(), rho=0.05),
        asam_jax.sam(
            optax.chain(optax.sgd(1.0), optax.scale_by_backtracking_linesearch(15)), rho=0.05
        ),
    ],
    ids=["zoom", "backtracking"],
)
def test_line_searches_lower_the_loss_at_w(tx):
    w = jnp.zeros(2)

    @jax.jit
    def step(w, state):
        value, grad = jax.value_and_grad(quartic)(w)
        extra = dict(value=value, grad=grad, value_fn=quartic)
        updates, state = tx.update(grad, state, w, grad_fn=jax.grad(quartic), climb=True, **extra)
        return optax.apply_updates(w, updates), state

    state, losses = tx.init(w), [2.0]
    for _ in range(12):
        w, state = step(w, state)
        losses.append(float(quartic(w)))
    assert max(np.diff(losses)) <= 0 and losses[-1] < 1e-3


def test_which_bases_are_handed_grad_fn_and_climb():
    seen = []

    def handed(update):
        def wrapped(updates, state, params=None, **extra_args):
            seen.append(set(extra_args))
            return updates, state

        wrapped.__signature__ = inspect.signature(update)
        tx = asam_jax.sam(optax.GradientTransformationExtraArgs(optax.init_empty_state, wrapped))
        extra = dict(grad_fn=grad_fn, climb=True, value=1.0)
        tx.update(array(), tx.init(array()), array(), **extra)
        tx.update(array(), tx.init(array()), array(), value_fn=lambda w, climb: w, **extra)
        return seen[-2] - {"value"}, seen[-1] - {"value", "value_fn"}

    strict = lambda u, s, p, *, value, value_fn=None: 0  # noqa: E731
    assert handed(strict) == (set(), {"climb"})
    assert handed(lambda u, s, p, **extra: 0) == ({"grad_fn", "climb"}, {"climb"})
    assert handed(lambda u, s, p, grad_fn, **extra: 0) == ({"grad_fn", "climb"},) * 2


@pytest.mark.parametrize(
    "climb", [True, False, np.True_, np.False_, np.array(False), jnp.array(True), jnp.array(False)]
)
def test_a_climb_with_a_value_takes_one_branch(climb):
    calls = []

    def counted(w):
        calls.append(1)
        return grad_fn(w)

    tx = asam_jax.sharpness_aware(**SAM)
    updates, _ = tx.update(
        grad_fn(array()), tx.init(array()), array(), grad_fn=counted, climb=climb
    )
    assert len(calls) == bool(climb)
    expected = after_steps(W) if climb else W - LR * gradient(W)
    np.testing.assert_allclose(W - LR * np.asarray(updates), expected, rtol=1e-6)


@pytest.mark.parametrize("climb", ["no", [True], np.array([True])])
def test_a_climb_that_is_no_boolean(climb):
    tx = asam_jax.sharpness_aware(**SAM)
    with pytest.raises(TypeError, match="climb must be True, False or a boolean scalar"):
        tx.update(array(), tx.init(array()), array(), grad_fn=grad_fn, climb=climb)


@pytest.mark.parametrize("jit", [True, False])
@pytest.mark.parametrize(
    ("every", "climbs"),
    [
        (lambda count: 0, [0, 0, 0, 0, 0]),
        (lambda count: jnp.where(count < 2, 0, 2), [0, 0, 1, 0, 1]),
        (lambda count: jnp.float32(2), [1, 0, 1, 0, 1]),
        (lambda count: np.int64(3), [1, 0, 0, 1, 0]),
        (lambda count: -1, [0, 0, 0, 0, 0]),
    ],
)
def test_schedules_of_every_may_give_zero(every, climbs, jit):
    tx = asam_jax.sharpness_aware(every=every, **SAM)
    g = grad_fn(array())
    step = lambda state: tx.update(g, state, array(), grad_fn=grad_fn)  # noqa: E731
    step, state, seen = jax.jit(step) if jit else step, tx.init(array()), []
    for _ in climbs:
        updates, state = step(state)
        seen.append(int(not jnp.array_equal(updates, g)))
    assert seen == climbs


def test_a_function_that_fails_under_flatten_says_so():
    params = {"kernel": array(), "bias": array()}
    f = lambda p: jax.tree.map(grad_fn, {"kernel": p["kernel"], "bias": p["bias"]})  # noqa: E731
    around = optax.flatten(asam_jax.sam(optax.sgd(LR), RHO))
    with pytest.raises(TypeError, match=r"vector of 6 entries.*asam_jax\.asam\(optax\.flatten"):
        around.update(f(params), around.init(params), params, grad_fn=f)
    inside = asam_jax.sam(optax.flatten(optax.sgd(LR)), RHO)
    updates, _ = inside.update(f(params), inside.init(params), params, grad_fn=f)
    plain = asam_jax.sam(optax.sgd(LR), RHO)
    expected, _ = plain.update(f(params), plain.init(params), params, grad_fn=f)
    chex.assert_trees_all_close(updates, expected, rtol=1e-6)


@pytest.mark.usefixtures("flax_promotes")
def test_lookahead_behind_the_link():
    """Two steps of SAM from w, then fast and slow meet half-way."""
    tx = optax.chain(
        asam_jax.sharpness_aware(ascent=optax.ema(0.0), **SAM),
        optax.lookahead(optax.sgd(LR), sync_period=2, slow_step_size=0.5),
    )
    params = optax.LookaheadParams.init_synced(array())
    state = tx.init(params)
    for _ in range(2):
        updates, state = tx.update(grad_fn(params.fast), state, params, grad_fn=grad_fn)
        params = optax.apply_updates(params, updates)
    np.testing.assert_allclose(params.slow, (W + after_steps(W, 2)) / 2, rtol=1e-6)


@pytest.mark.parametrize(
    "operator",
    [
        asam_jax.elementwise(),
        asam_jax.filterwise(),
        asam_jax.masked(asam_jax.identity(), lambda params: params),
        lambda params: jax.tree.map(jnp.ones_like, params),
    ],
)
@pytest.mark.parametrize("factory", [asam_jax.sharpness_aware, asam_jax.alternating])
def test_inject_hyperparams_that_takes_an_operator_for_a_schedule(factory, operator):
    make = optax.inject_hyperparams(factory)
    base = (optax.sgd(0.1),) if factory is asam_jax.alternating else ()
    with pytest.raises(TypeError, match=r'operator .*static_args=\("operator",\)'):
        make(*base, rho=0.5, operator=operator).init({"k": jnp.ones(2)})


def test_inject_hyperparams_takes_the_other_arguments_unchanged():
    make = optax.inject_hyperparams(asam_jax.sharpness_aware, static_args=("operator",))
    tx = make(every=lambda count: 2, ascent=optax.ema(0.0), descent=asam_jax.wsam_descent(0), **SAM)
    g = grad_fn(array())
    with jax.numpy_dtype_promotion("standard"):
        updates, state = tx.update(g, tx.init(array()), array(), grad_fn=grad_fn)
    np.testing.assert_allclose(updates, g, rtol=1e-6)  # gamma = 0 descends along g
    assert int(state.hyperparams["every"]) == 2
