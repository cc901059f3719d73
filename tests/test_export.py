"""Training steps exported for CUDA, TPU and CPU: what shows without an accelerator.

Each program is lowered for the three, written and read back. No float64, no call of the host and no
transfer to it is in any; the state's buffers are donated; and on the CPU the program that was read
back computes what the step does.
"""

import functools
import importlib.util
import re

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import asam_jax
from experiments.config import run_config
from experiments.config.step_forms import STEP_FORMS
from experiments.datasets import arrays
from experiments.training import gradients
from experiments.training import step as stepping
from experiments.training.spec import hyper_of, spec_of
from tests import many

pytestmark = pytest.mark.usefixtures("flax_promotes")

PLATFORMS = ("cpu", "cuda", "tpu")
FLATBUFFERS = importlib.util.find_spec("flatbuffers")
DONATED = r"tf\.aliasing_output|jax\.buffer_donor"
# Calls of the host and transfers to it, as JAX and StableHLO name them.
HOST = r"callback|infeed|outfeed|stablehlo\.(send|recv)|SendToHost|RecvFromHost|annotate_device"


def exported(function, *arguments, donate=1, **how):
    """The program read back of its bytes, after a look at it; and its value on the arguments.

    As a function of leaves, since the names of states are not known where bytes are read. The
    first `donate` arguments are donated, every leaf of them.
    """
    leaves, tree = jax.tree.flatten(arguments)
    donated = len(jax.tree.leaves(arguments[:donate]))

    def flat(*leaves):
        return tuple(jax.tree.leaves(function(*jax.tree.unflatten(tree, leaves))))

    jitted = jax.jit(flat, donate_argnums=tuple(range(donated)), **how)
    made = jax.export.export(jitted, platforms=PLATFORMS)(*leaves)
    text = made.mlir_module()
    assert "f64" not in text
    assert not re.search(HOST, text)
    kept = len(made.module_kept_var_idx)  # what the step never reads is not in the program
    assert donated - (len(leaves) - kept) <= len(re.findall(DONATED, text)) <= donated
    if FLATBUFFERS is not None:  # without it JAX writes no bytes; the extra `dev` has it
        made = jax.export.deserialize(made.serialize())
        assert made.platforms == PLATFORMS and made.mlir_module() == text
    return made, jax.jit(made.call)(*leaves)


def close(got, expected, tolerance=1e-5):
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


@functools.cache
def dataset():
    rng = np.random.default_rng(0)
    images = rng.integers(256, size=(16, 4, 4, 1), dtype=np.uint8)
    labels = rng.integers(10, size=16, dtype=np.int32)
    return arrays.from_arrays("digits", 10, images, labels, images, labels)


def problem(model="mlp", method="asam", **values):
    """Spec, state, and what else a training step takes."""
    made = run_config.make("digits", method, model=model, batch_size=16, epochs=1, **values)
    data = dataset()
    spec = spec_of(made, data)
    state = stepping.jitted_init(spec.model, jnp.uint32(0))
    state = state._replace(memory=gradients.init(spec, state.params))
    order = jnp.arange(16, dtype=jnp.int32)
    hyper = hyper_of(made, 4)
    return (
        spec,
        state,
        (order, jnp.asarray(data.train_images), jnp.asarray(data.train_labels), hyper),
    )


def step_of(spec):
    return jax.jit(functools.partial(stepping.train_step, spec), donate_argnums=0)


def copied(tree):
    return jax.tree.map(jnp.array, tree)


def small(monkeypatch, name, widths):
    """The network of that name, one layer of each kind."""
    from experiments.models import small as networks

    def forget():
        stepping._graphdef.cache_clear()
        jax.clear_caches()

    forget()
    monkeypatch.setattr(getattr(networks, name), "widths", widths)
    return forget


@pytest.mark.parametrize(("model", "dtype"), [("cnn", "float32"), ("mlp", "bfloat16")])
def test_a_training_step(monkeypatch, model, dtype):
    forget = small(monkeypatch, "Cnn", (4,))
    spec, state, rest = problem(model, dtype=dtype, augment=True)
    _, got = exported(step_of(spec), state, *rest)
    close(got, step_of(spec)(copied(state), *rest), 1e-4 if dtype == "float32" else 2e-2)
    forget()


@pytest.mark.parametrize("variant", [name for name in STEP_FORMS if name != "exact"])
def test_every_form_of_a_step(variant):
    spec, state, rest = problem(variant=variant, weight=0.5)
    _, got = exported(step_of(spec), state, *rest)
    close(got, step_of(spec)(copied(state), *rest), 1e-4)


def test_a_scan_over_steps_is_one_program():
    """As an epoch is on an accelerator; it takes no transfer between two steps."""
    spec, state, rest = problem()

    def epoch(state, *rest):
        return jax.lax.scan(lambda s, _: stepping.train_step(spec, s, *rest), state, length=3)[0]

    made, got = exported(epoch, state, *rest)
    assert "stablehlo.while" in made.mlir_module()
    close(got, jax.jit(epoch)(copied(state), *rest), 1e-4)


@pytest.mark.parametrize(("chosen", "named"), [("highest", "HIGHEST"), ("high", "HIGH")])
def test_the_precision_is_in_the_program(chosen, named):
    """Of every product, forward and backward; without it none names one."""
    for precision, expected in (("default", set()), (chosen, {named})):
        spec, state, rest = problem(precision=precision)
        text = step_of(spec).lower(state, *rest).as_text()
        products = [line for line in text.splitlines() if "stablehlo.dot_general" in line]
        found = [set(re.findall(r"precision = \[(\w+), (\w+)\]", line)) for line in products]
        assert len(products) >= 4
        names = [{name for pair in pairs for name in pair} - {"DEFAULT"} for pairs in found]
        assert all(each == expected for each in names)


LINK = dict(axis_name="data", perturb_axis_name="data")


def link_step(axes):
    """A step of the link with momentum, with or without names of mapped axes."""
    import optax

    tx = asam_jax.asam(optax.sgd(0.1, 0.9), rho=many.RHO, **axes)

    def step(params, state, x, y):
        def grad_fn(w):
            return jax.grad(functools.partial(many.loss, jnp))(w, x, y)

        own = params
        if axes and jax.typeof(x).manual_axis_type.varying:
            own = jax.tree.map(lambda w: jax.lax.pcast(w, "data", to="varying"), params)
        updates, state = tx.update(grad_fn(own), state, params, grad_fn=grad_fn)
        return optax.apply_updates(params, updates), state

    return tx, step


def one_device(params, x, y):
    """The new parameters by the NumPy oracle: one eps for all."""
    _, grads = many.reference(params, x, y, [many.EXAMPLES])
    return {name: params[name] - 0.1 * grads[name] for name in params}


def named(leaves, params):
    """The first leaves under the parameters' names."""
    return dict(zip(sorted(params), leaves[: len(params)], strict=True))


def test_the_link_under_shard_map():
    params, x, y = many.problem()
    mesh = many.mesh((8,), ("data",))
    tx, step = link_step(LINK)
    mapped = jax.shard_map(
        step, mesh=mesh, in_specs=(P(), P(), P("data"), P("data")), out_specs=(P(), P())
    )
    whole, cut = NamedSharding(mesh, P()), NamedSharding(mesh, P("data"))
    params_on, state = jax.device_put((params, tx.init(params)), whole)
    x_on, y_on = jax.device_put((x, y), cut)
    made, got = exported(mapped, params_on, state, x_on, y_on, donate=2)
    assert made.nr_devices == 8
    many.close(named(got, params), one_device(params, x, y))


def test_the_link_under_sharded_jit():
    """Kernels cut over the devices as the batch is; nothing of it is said to the link."""
    params, x, y = many.problem()
    mesh = many.mesh((8,), ("data",))
    tx, step = link_step({})
    specs = {"kernel": P(None, "data"), "bias": P("data"), "head": P("data")}
    lay = {name: NamedSharding(mesh, spec) for name, spec in specs.items()}
    params_on = jax.device_put(params, lay)
    state = tx.init(params_on)
    x_on, y_on = jax.device_put((x, y), NamedSharding(mesh, P("data")))
    made, got = exported(step, params_on, state, x_on, y_on, donate=2)
    assert made.nr_devices == 8
    many.close(named(got, params), one_device(params, x, y))


def test_the_link_under_pmap():
    params, x, y = many.problem()
    tx, step = link_step(LINK)
    mapped = jax.pmap(step, axis_name="data")  # within the jit that an export asks for
    stack = jax.tree.map(lambda w: np.stack([w] * 8), (params, tx.init(params)))
    arguments = *stack, x.reshape(8, 2, -1), y.reshape(8, 2, -1)
    lay = NamedSharding(many.mesh((8,), ("data",)), P("data"))
    arguments = jax.device_put(arguments, lay)
    made, got = exported(mapped, *arguments, donate=2)
    assert made.nr_devices == 8
    many.close(named([leaf[0] for leaf in got], params), one_device(params, x, y))
