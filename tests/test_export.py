"""Steps compiled for devices that are not here: exported for CPU, CUDA and TPU, stored, read back.

What such a program holds is its text, the same for all three platforms; here it runs on the CPU.
"""

import functools
import re

import jax
import jax.numpy as jnp
import many
import numpy as np
import pytest
from jax import export
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from variants import ALL, optimizer, step_of

PLATFORMS = ("cpu", "cuda", "tpu")
DONATED = re.compile(r"tf\.aliasing_output|jax\.buffer_donor")
PARAMS, X, Y = many.problem()


def exported(function, arguments, donate=()):
    """The function for every platform, as it comes back from its bytes."""
    jitted = jax.jit(function, donate_argnums=donate)
    program = export.export(jitted, platforms=PLATFORMS)(*arguments)
    stored = export.deserialize(program.serialize())
    assert stored.mlir_module() == program.mlir_module()
    program = stored
    assert program.platforms == PLATFORMS
    return program


def stays_on_the_device_in_single_precision(text):
    """No float64, no call of the host, nothing sent or received."""
    words = ("custom_call", "f64", "stablehlo.send", "stablehlo.recv", "infeed", "outfeed")
    for word in (*words, "callback", "pinned_host"):
        assert word not in text, word


@functools.cache
def of_variant(name):
    """A variant's exported step of flat arguments, the step, and those of its state."""
    tx = optimizer(name)
    params = jax.tree.map(jnp.asarray, PARAMS)
    leaves, tree = jax.tree.flatten((params, tx.init(params)))

    def step(*arguments):
        params, state = tree.unflatten(arguments[: len(leaves)])
        return tuple(jax.tree.leaves(step_of(tx)(params, state, *arguments[len(leaves) :])))

    return exported(step, (*leaves, X, Y), donate=tuple(range(len(leaves)))), step, leaves


@pytest.mark.parametrize("name", ALL)
def test_a_step_stays_on_its_device_and_may_overwrite_its_state(name):
    program, _, leaves = of_variant(name)
    text = program.mlir_module()
    stays_on_the_device_in_single_precision(text)
    inputs = re.search(r"func\.func public @main\((.*?)\) ->", text, re.DOTALL)
    assert inputs is not None
    assert len(DONATED.findall(inputs[1])) == len(leaves)


@pytest.mark.parametrize("name", ["exact", "LookSAM"])
def test_what_is_read_back_trains_as_the_step_does(name):
    program, step, leaves = of_variant(name)
    expected = jax.jit(step)(*leaves, X, Y)
    own = [jnp.array(x) for x in leaves]
    again = jax.jit(program.call, donate_argnums=tuple(range(len(own))))(*own, X, Y)
    for got, wanted in zip(again, expected, strict=True):
        np.testing.assert_array_equal(got, wanted)
    assert all(x.is_deleted() for x in own)


def test_an_epoch_is_one_program():
    """A scan over steps, as an accelerator runs it: nothing leaves it between two of them."""
    _, step, leaves = of_variant("LookSAM")

    def epoch(*arguments):
        body = lambda state, _: (step(*state, X, Y), None)  # noqa: E731
        return jax.lax.scan(body, arguments, length=2)[0]

    text = exported(epoch, leaves, donate=tuple(range(len(leaves)))).mlir_module()
    stays_on_the_device_in_single_precision(text)
    assert "stablehlo.while" in text and len(DONATED.findall(text)) == len(leaves)


def agrees_on_a_mesh(function, specs, groups):
    """What the program for eight devices gives here: value, gradient and updates by the oracle."""
    mesh = many.mesh((8,), ("data",))
    lie = jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs)
    arguments = jax.device_put((PARAMS, X, Y), lie)
    program = exported(function, arguments)
    stays_on_the_device_in_single_precision(program.mlir_module())
    assert program.nr_devices == 8
    (value, grads), updates = jax.jit(program.call)(*arguments)
    loss, expected = many.reference(PARAMS, X, Y, groups)
    np.testing.assert_allclose(value, loss, rtol=1e-5)
    many.close(grads, expected)
    many.close(updates, expected)


def test_a_step_under_shard_map():
    mapped = many.over_data(many.both("data", None))
    agrees_on_a_mesh(mapped, (P(), P("data"), P("data")), many.ONE_EACH)


def test_a_step_under_sharded_jit():
    """Parameters cut over the devices, as FSDP cuts them."""
    cut = {"kernel": P(None, "data"), "bias": P("data"), "head": P("data")}
    agrees_on_a_mesh(many.both(None, None), (cut, P("data"), P("data")), many.WHOLE)
