"""Steps compiled for devices that are not here: exported for CPU, CUDA and TPU, stored, read back.

What such a program holds is its text, the same for all three platforms; here it runs on the CPU.
"""

import functools
import importlib.util
import re

import jax
import jax.numpy as jnp
import many
import numpy as np
import pytest
from jax import export
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from experiments.config import run_config
from experiments.config.step_forms import EXACT, STEP_FORMS
from experiments.datasets import arrays
from experiments.models.small import Cnn, Mlp
from experiments.training import gradients
from experiments.training import step as stepping
from experiments.training.spec import hyper_of, spec_of

pytestmark = pytest.mark.usefixtures("flax_promotes")

PLATFORMS = ("cpu", "cuda", "tpu")
DONATED = re.compile(r"tf\.aliasing_output|jax\.buffer_donor")


def exported(function, arguments, donate=()):
    """The function for every platform, as it comes back from its bytes."""
    jitted = jax.jit(function, donate_argnums=donate)
    program = export.export(jitted, platforms=PLATFORMS)(*arguments)
    if importlib.util.find_spec("flatbuffers"):  # of the extra dev; without it JAX stores none
        stored = export.deserialize(program.serialize())
        assert stored.mlir_module() == program.mlir_module()
        program = stored
    assert program.platforms == PLATFORMS
    return program


def nothing_leaves_the_device_or_is_double(text):
    """No float64, no call of the host, nothing sent or received."""
    assert "custom_call" not in text and "f64" not in text
    for word in (
        "stablehlo.send",
        "stablehlo.recv",
        "infeed",
        "outfeed",
        "callback",
        "pinned_host",
    ):
        assert word not in text, word


@pytest.fixture(scope="module", autouse=True)
def small():
    """One convolution of four channels, or one layer of ten units."""

    def forget():
        stepping._graphdef.cache_clear()
        jax.clear_caches()

    forget()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Cnn, "widths", (4,))
        patch.setattr(Mlp, "widths", ())
        yield
    forget()


def training_step(model, method, **values):
    """A step as a function of arrays, and its arguments; the first so many are the state's."""
    made = run_config.make(
        "digits", method, model=model, epochs=1, batch_size=32, subset=64, **values
    )
    dataset = arrays.prepare(arrays.load("digits"), made)
    spec = spec_of(made, dataset)
    state = stepping.jitted_init(spec.model, jnp.uint32(0))
    state = state._replace(memory=gradients.init(spec, state.params))
    leaves, tree = jax.tree.flatten(state)
    hyper = hyper_of(made, 2)
    order = stepping.epoch_order(spec, jnp.uint32(0), jnp.int32(0), 64)

    def step(*arguments):
        held, (order, images, labels, *numbers) = arguments[: len(leaves)], arguments[len(leaves) :]
        state, loss = stepping.train_step(
            spec, tree.unflatten(held), order, images, labels, type(hyper)(*numbers)
        )
        return *jax.tree.leaves(state), loss

    images, labels = jnp.asarray(dataset.train_images), jnp.asarray(dataset.train_labels)
    return step, (*leaves, order, images, labels, *hyper), len(leaves)


CASES = {
    "SGD": ("mlp", "sgd", {}),
    "SAM in bfloat16": ("cnn", "sam", dict(dtype="bfloat16")),
    "filter-wise": ("cnn", "asam", dict(normalization="filterwise", augment=True)),
    **{name: ("mlp", "asam", dict(variant=name, weight=0.3)) for name in STEP_FORMS},
}


@functools.cache
def of_case(name):
    """A case's exported step, the step, its arguments, and how many of them are the state's."""
    model, method, values = CASES[name]
    step, arguments, held = training_step(model, method, **values)
    return exported(step, arguments, donate=tuple(range(held))), step, arguments, held


@pytest.mark.parametrize("name", CASES)
def test_a_training_step_stays_on_its_device_and_may_overwrite_its_state(name):
    program, _, _, held = of_case(name)
    text = program.mlir_module()
    nothing_leaves_the_device_or_is_double(text)
    # All of the state is donated; the data and the numbers are not.
    inputs = re.search(r"func\.func public @main\((.*?)\) ->", text, re.DOTALL)
    assert inputs is not None
    donated = [bool(DONATED.search(one)) for one in inputs[1].split("%arg")[1:]]
    used = program.module_kept_var_idx  # none but the state's and those; one says the platform
    assert set(range(held)) <= set(used) and len(donated) - len(used) in (0, 1)
    assert donated[-len(used) :] == [number < held for number in used]


# One of each kind of program: a convolution, conditions, gradients of parts, a rule of descent.
@pytest.mark.parametrize("name", ["SAM in bfloat16", EXACT, "stale", "part16-steady", "gsam"])
def test_what_is_read_back_trains_as_the_step_does(name):
    program, step, arguments, held = of_case(name)
    expected = jax.jit(step)(*arguments)
    own = [jnp.array(x) for x in arguments[:held]]
    again = jax.jit(program.call, donate_argnums=tuple(range(held)))(*own, *arguments[held:])
    for got, wanted in zip(again, expected, strict=True):
        np.testing.assert_array_equal(got, wanted)
    assert all(x.is_deleted() for x in own)


def test_an_epoch_is_one_program():
    """A scan over steps, as an accelerator runs it: nothing leaves it between two of them."""
    _, step, arguments, held = of_case(EXACT)

    def epoch(*arguments):
        def body(state, _):
            *state, loss = step(*state, *arguments[held:])
            return state, loss

        return jax.lax.scan(body, list(arguments[:held]), length=2)

    text = exported(epoch, arguments, donate=tuple(range(held))).mlir_module()
    nothing_leaves_the_device_or_is_double(text)
    assert "stablehlo.while" in text and len(DONATED.findall(text)) == held


@pytest.mark.parametrize(("precision", "named"), [("default", "DEFAULT"), ("highest", "HIGHEST")])
def test_the_precision_of_a_run_is_that_of_every_product(precision, named):
    """Forward and backward, in both passes."""
    step, arguments, _ = training_step("mlp", "asam", precision=precision)
    text = jax.jit(step).lower(*arguments).as_text()
    products = re.findall(r"stablehlo\.dot_general.*", text)
    assert len(products) >= 4
    for product in products:
        found = re.search(r"precision = \[(\w+), (\w+)\]", product)
        assert (found.groups() if found else ("DEFAULT",) * 2) == (named, named)


PARAMS, X, Y = many.problem()
MANY = ("data",)


def on_a_mesh(function, specs):
    """What the program for eight devices gives on those of this process."""
    mesh = many.mesh((8,), MANY)
    lie = jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs)
    arguments = jax.device_put((PARAMS, X, Y), lie)
    program = exported(function, arguments)
    nothing_leaves_the_device_or_is_double(program.mlir_module())
    assert program.nr_devices == 8
    return jax.jit(program.call)(*arguments)


def agrees(got, groups):
    """The link's updates, and value and gradient, are those of the groups' own eps."""
    (value, grads), updates = got
    loss, expected = many.reference(PARAMS, X, Y, groups)
    np.testing.assert_allclose(value, loss, rtol=1e-5)
    many.close(grads, expected)
    many.close(updates, expected)


@pytest.mark.parametrize(
    ("perturb", "groups"), [(None, many.ONE_EACH), ("data", [many.EXAMPLES])], ids=["own", "one"]
)
def test_the_link_under_shard_map(perturb, groups):
    mapped = jax.shard_map(
        many.both_forms("data", perturb),
        mesh=many.mesh((8,), MANY),
        in_specs=(P(), P("data"), P("data")),
        out_specs=P(),
    )
    agrees(on_a_mesh(mapped, (P(), P("data"), P("data"))), groups)


def test_the_link_under_pmap():
    """`jax.export` takes what jit made, and so pmap within a jit."""
    mapped = jax.pmap(many.both_forms("data", None), "data", in_axes=(None, 0, 0))

    def cut(params, x, y):
        return jax.tree.map(
            lambda leaf: leaf[0], mapped(params, x.reshape(8, 2, -1), y.reshape(8, 2, -1))
        )

    agrees(on_a_mesh(cut, (P(), P("data"), P("data"))), many.ONE_EACH)


def test_the_link_under_sharded_jit():
    """Parameters cut over the devices, as FSDP cuts them."""
    cut = {"kernel": P(None, "data"), "bias": P("data"), "head": P("data")}
    got = on_a_mesh(many.both_forms(None, None), (cut, P("data"), P("data")))
    agrees(got, [many.EXAMPLES])
