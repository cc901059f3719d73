"""Steps on many devices as people write them: right, or refused with both mends."""

import functools

import jax
import jax.numpy as jnp
import many
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P

import asam_jax

LR, RHO = 0.1, many.RHO
loss = functools.partial(many.loss, jnp)
AXES = dict(axis_name="data", perturb_axis_name="data")
MENDS = r"leave axis_name out.*jax\.lax\.pcast\(params, \('data',\), to='varying'\)"


def with_grad_fn(make, **extra):
    """A step of a transformation with two gradients, on the loss that it is handed."""

    def step(loss, params, own, axes):
        tx = optax.chain(make(**axes), optax.sgd(LR))
        state = tx.init(params)
        for _ in range(2):
            update = functools.partial(tx.update, **extra) if extra else tx.update
            grads = jax.grad(loss)(own(params))
            updates, state = update(grads, state, params, grad_fn=jax.grad(loss))
            params = optax.apply_updates(params, updates)
        return params

    return step


def with_value_and_grad(loss, params, own, axes):
    del own
    return asam_jax.value_and_grad(loss, rho=RHO, **axes)(params)[1]


def with_one_gradient(loss, params, own, axes):
    """alternating, then momentum_ascent: the loop averages the gradient, as for SGD."""
    sharded = {name: axis for name, axis in axes.items() if name == "sharded_axis_name"}
    mean = lambda g: jax.lax.pmean(g, "data") if axes else g  # noqa: E731
    tx, memory = asam_jax.alternating(optax.sgd(LR), RHO, **sharded), asam_jax.remember(0.5)
    state, kept = tx.init(params), memory.init(params)
    for _ in range(4):
        updates, state = tx.update(mean(jax.grad(loss)(own(params))), state, params)
        params = optax.apply_updates(params, updates)
    for _ in range(2):
        at = asam_jax.momentum_ascent(params, kept, rho=RHO, **sharded)
        grads, kept = memory.update(mean(jax.grad(loss)(own(at))), kept)
        params = jax.tree.map(lambda w, g: w - LR * g, params, grads)
    return params


def with_wsam(loss, params, own, axes):
    tx = asam_jax.decoupled_wsam(optax.sgd(LR), LR, RHO, gamma=0.7, **axes)
    grads = jax.grad(loss)(own(params))
    updates, _ = tx.update(grads, tx.init(params), params, grad_fn=jax.grad(loss))
    return optax.apply_updates(params, updates)


sharpness_aware = functools.partial(functools.partial, asam_jax.sharpness_aware, RHO)
VARIANTS = {
    "asam": with_grad_fn(sharpness_aware()),
    "rho=0": with_grad_fn(functools.partial(asam_jax.sharpness_aware, 0.0)),
    "perturb=False": with_grad_fn(sharpness_aware(), perturb=False),
    "every": with_grad_fn(sharpness_aware(every=2)),
    "friendly": with_grad_fn(sharpness_aware(ascent=asam_jax.friendly_ascent(0.8, 0.6))),
    "gsam": with_grad_fn(sharpness_aware(descent=asam_jax.gsam_descent(0.3))),
    "looksam": with_grad_fn(sharpness_aware(every=2, descent=asam_jax.looksam_descent(0.4))),
    "wsam": with_grad_fn(sharpness_aware(descent=asam_jax.wsam_descent(0.7))),
    "stable": with_grad_fn(sharpness_aware(descent=asam_jax.stable_descent())),
    "decoupled_wsam": with_wsam,
    "one gradient": with_one_gradient,
    "value_and_grad": with_value_and_grad,
}


def varying(tree):
    return jax.tree.map(lambda w: jax.lax.pcast(w, "data", to="varying"), tree)


def mapped(step, loss=loss, own=lambda params: params, axes=AXES):
    """The step on eight devices, each with two examples."""
    on_device = lambda w, x, y: step(lambda w: loss(w, x, y), w, own, axes)  # noqa: E731
    specs = (P(), P("data"), P("data"))
    mesh = many.mesh((8,), ("data",))
    return jax.jit(jax.shard_map(on_device, mesh=mesh, in_specs=specs, out_specs=P()))


def averaged(w, x, y):
    return jax.lax.pmean(loss(w, x, y), "data")


@pytest.mark.parametrize("name", VARIANTS)
def test_three_ways_to_write_a_step_under_shard_map(name):
    """s01, g03: 8 times too long, 1/8 of the gradient, or a cosine of -0.97, in silence."""
    step, (params, x, y) = VARIANTS[name], many.problem()
    expected = step(lambda w: loss(w, x, y), params, lambda params: params, {})
    many.close(mapped(step, own=varying)(params, x, y), expected)
    many.close(mapped(step, loss=averaged, axes={})(params, x, y), expected)
    if name == "one gradient":
        return
    if name != "value_and_grad":  # which makes the gradient each device's own by itself
        with pytest.raises(ValueError, match=MENDS):
            mapped(step)(params, x, y)
    with pytest.raises(ValueError, match=MENDS):
        mapped(step, loss=averaged)(params, x, y)


def test_a_loss_over_the_tokens_of_all_devices():
    """g03: psum(sum) / psum(count) is the final loss; axis_name is left out."""
    params, x, y = many.problem()
    real = np.float32(np.arange(16) % 3 > 0)

    def total(w, x, y, real):
        hidden = jnp.tanh(x @ w["kernel"] + w["bias"][None])
        error = jnp.sum((hidden @ w["head"] - y) ** 2, axis=1)
        return jnp.sum(error * real), jnp.sum(real)

    def token_loss(*inputs):
        return jnp.divide(*jax.lax.psum(total(*inputs), "data"))

    def run(axes, check_vma=True):
        f = asam_jax.value_and_grad(token_loss, rho=RHO, **axes)
        specs = (P(), P("data"), P("data"), P("data"))
        mesh = many.mesh((8,), ("data",))
        f = jax.shard_map(f, mesh=mesh, in_specs=specs, out_specs=P(), check_vma=check_vma)
        return jax.jit(f)(params, x, y, real)

    of = lambda w: jnp.divide(*total(w, x, y, real))  # noqa: E731
    value, grads = run({})
    np.testing.assert_allclose(value, of(params), rtol=1e-6)
    many.close(grads, asam_jax.value_and_grad(of, rho=RHO)(params)[1])
    with pytest.raises(ValueError, match=MENDS):
        run(AXES)


SPECS = {"kernel": P(None, "model"), "bias": P("model"), "head": P("model", None), "out": P()}


def cut_loss(w, x, y):
    """The network of `many` with its hidden units cut over "model", and a replicated bias."""
    hidden = jnp.tanh(x @ w["kernel"] + w["bias"].reshape(1, -1))
    out = jax.lax.psum(hidden @ w["head"], "model") + w["out"].reshape(1, -1)
    return jnp.mean(jnp.sum((out - y) ** 2, axis=1))


def whole_loss(w, x, y):
    return loss({k: v for k, v in w.items() if k != "out"}, x, y - w["out"].reshape(1, -1))


@pytest.mark.parametrize("name", VARIANTS)
def test_parameters_cut_over_an_axis_take_the_step_of_one_device(name):
    """g01: each device had a norm of its own, and updates were 22 to 30% off."""
    step, (params, x, y) = VARIANTS[name], many.problem()
    params = {**params, "out": np.float32([0.1, -0.3, 0.2, 0.5])}
    axes = dict(**AXES, sharded_axis_name="model")
    on_device = lambda w, x, y: step(lambda w: cut_loss(w, x, y), w, varying, axes)  # noqa: E731
    mesh = many.mesh((2, 4), ("data", "model"))
    specs = (SPECS, P("data"), P("data"))
    got = jax.jit(jax.shard_map(on_device, mesh=mesh, in_specs=specs, out_specs=SPECS))
    expected = step(lambda w: whole_loss(w, x, y), params, lambda params: params, {})
    many.close(got(params, x, y), expected)


@pytest.mark.parametrize("p", [1.5, 2.0, np.inf])
@pytest.mark.parametrize("operator", [asam_jax.elementwise(), asam_jax.identity()])
def test_eps_of_parameters_cut_over_an_axis(operator, p):
    params, grads = many.problem(0)[0], many.problem(1)[0]
    specs = {"kernel": P(None, "model"), "bias": P("model"), "head": P()}
    eps = functools.partial(asam_jax.perturbation, rho=RHO, operator=operator, p=p)
    cut = functools.partial(eps, sharded_axis_name="model")
    mesh = many.mesh((8,), ("model",))
    cut = jax.jit(jax.shard_map(cut, mesh=mesh, in_specs=(specs, specs), out_specs=specs))
    many.close(cut(params, grads), eps(params, grads))


def test_cut_parameters_are_refused_where_types_do_not_say_which_leaves_are_cut():
    params, grads = many.problem(0)[0], many.problem(1)[0]
    cut = functools.partial(asam_jax.perturbation, rho=RHO, sharded_axis_name="model")
    mesh = many.mesh((8,), ("model",))
    cut = jax.shard_map(cut, mesh=mesh, in_specs=P(), out_specs=P(), check_vma=False)
    with pytest.raises(ValueError, match=r"sharded_axis_name.*check_vma"):
        jax.jit(cut)(params, grads)
    with pytest.raises(ValueError, match="sharded_axis_name: 'model' is not a mapped axis"):
        asam_jax.perturbation(params, grads, rho=RHO, sharded_axis_name="model")


def decided(x, average):
    """Whether this device's inputs are long, or those of all devices."""
    length = jnp.mean(x**2)
    return (jax.lax.pmean(length, "data") if average else length) > 1.0


@pytest.mark.parametrize("average", [False, True])
def test_a_decision_of_each_device_is_refused_before_it_hangs(average):
    """g02: the devices took different branches, whose collectives never met."""
    params, x, y = many.problem()
    tx = asam_jax.sharpness_aware(RHO, **AXES)

    def step(params, x, y):
        grad_fn = lambda w: jax.grad(loss)(w, x, y)  # noqa: E731
        grads = grad_fn(varying(params))
        perturb = decided(x, average)
        return tx.update(grads, tx.init(params), params, grad_fn=grad_fn, perturb=perturb)[0]

    specs = (P(), P("data"), P("data"))
    mesh = many.mesh((8,), ("data",))
    step = jax.jit(jax.shard_map(step, mesh=mesh, in_specs=specs, out_specs=P()))
    if not average:
        with pytest.raises(ValueError, match=r"perturb .*data.*jax\.lax\.p"):
            step(params, x, y)
        return
    groups = [many.EXAMPLES]
    for factor in (0.5, 2.0):
        scaled = (factor * x).astype(np.float32)
        ascends = np.mean(scaled**2) > 1.0
        expected = many.reference(params, scaled, y, groups)[1]
        plain = many.gradient(params, scaled, y)
        many.close(step(params, scaled, y), expected if ascends else plain)
