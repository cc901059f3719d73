"""Every variant compiles for eight TPU v5e chips, and communicates no more than it must.

No TPU is needed, but its compiler: pip install -e '.[tpu-compile]'.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import asam_jax
from experiments.benchmarks import compiled, compiled_models, compiled_steps, hlo
from experiments.benchmarks.compiled_models import AXIS

pytest.importorskip("libtpu", reason="needs the TPU compiler: pip install -e '.[tpu-compile]'")

# A gradient of two layers is 134 kB on a chip, 17 where they are sharded; what eps or a rule
# reduces beside it is small.
SMALL = 1024


@pytest.fixture(scope="module", autouse=True)
def full_compilation():
    """As users compile, and never from a cache: without a device no program is read from it."""
    jax.config.update("jax_disable_most_optimizations", False)
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()  # which remembers whether it is used
    yield
    jax.config.update("jax_disable_most_optimizations", True)
    jax.config.update("jax_enable_compilation_cache", True)
    compilation_cache.reset_cache()


@pytest.fixture(scope="module")
def mesh():
    return Mesh(np.array(compiled.devices_of("v5e:2x4")[0]), (AXIS,))


def problem(mesh, **how):
    return compiled_models.chain(mesh, depth=2, width=128, **how)


def collectives(step, *arguments):
    text = jax.jit(step).lower(*arguments).compile().as_text()
    return hlo.Program(text).collectives(8)


def counts(found):
    """Collectives that move (gathers and the like), all-reduces of a gradient, small ones."""
    reduces = [one for one in found if one.kind in ("all-reduce", "reduce-scatter")]
    small = [one for one in reduces if one.bytes < SMALL]
    return len(found) - len(reduces), len(reduces) - len(small), len(small)


def of(given, name, optimizer=None):
    step, state = compiled_steps.step(given, name, optimizer)
    return counts(collectives(step, given.params, given.rest, state, given.batch))


def asam(**how):
    return asam_jax.asam(compiled_models.base(), 0.5, **how)


ONE_GRADIENT = ("base", "own eps", "momentum", "alternating, 1st", "alternating, 2nd")


@pytest.mark.parametrize("name", compiled_steps.VARIANTS)
def test_a_second_gradient_is_one_more_all_reduce(mesh, name):
    """Of the replicated parameters' gradient; norms and inner products are each chip's own."""
    assert of(problem(mesh), name) == (0, 1 if name in ONE_GRADIENT else 2, 0)


MASK = {"layer00": False, "layer01": True}
ARGUMENTS = {
    "p = 1": dict(p=1.0),
    "p = 1.5": dict(p=1.5),
    "p = inf": dict(p=float("inf")),
    "filter-wise": dict(operator=asam_jax.filterwise()),
    "masked": dict(operator=asam_jax.masked(asam_jax.elementwise(), MASK)),
    "sam": dict(operator=asam_jax.identity()),
}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_no_argument_communicates_more(mesh, name):
    assert of(problem(mesh), name, asam(**ARGUMENTS[name])) == (0, 2, 0)


def test_bfloat16_parameters(mesh):
    assert of(problem(mesh, dtype=jnp.bfloat16), "exact") == (0, 2, 0)


def test_sharded_parameters_gather_no_more_and_eps_adds_one_small_all_reduce(mesh):
    given = problem(mesh, spec=AXIS)
    gathers, reduces, small = of(given, "base")
    optimizers = {"p = inf": asam(p=float("inf"))}
    for name, more in {"exact": 1, "p = inf": 1, "gsam": 3, "looksam": 5}.items():
        found = of(given, name, optimizers.get(name))
        assert found[0] <= 2 * gathers and found[1] <= 2 * reduces
        assert found[2] <= 2 * small + more


def test_a_subset_of_each_device_is_not_spread_again(mesh, monkeypatch):
    """Where `x[:n]` would lie on the first devices and be sent to the others."""
    given = problem(mesh)
    monkeypatch.setattr(compiled_steps, "own_first", lambda x, mesh, share: x[: len(x) // share])
    assert of(given, "subset") != of(given, "exact")


def test_pmap(mesh):
    given = problem(mesh)
    tx = asam(axis_name=AXIS, perturb_axis_name=AXIS)
    step, state = compiled_steps.step(given, "exact", tx)
    axes = dict(in_axes=(None, None, None, 0), axis_name=AXIS)
    mapped = jax.pmap(step, devices=list(mesh.devices.flat), **axes)
    bare = lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)  # noqa: E731
    shapes = jax.tree.map(bare, (given.params, given.rest, state))
    text = mapped.lower(*shapes, jax.ShapeDtypeStruct((8, 64, 128), jnp.float32)).compile()
    assert counts(hlo.Program(text.as_text()).collectives(8)) == (0, 2, 0)


def test_a_scan_over_steps(mesh):
    given = problem(mesh)
    step, state = compiled_steps.step(given, "exact")

    def steps(carry, batches):
        return jax.lax.scan(lambda carry, batch: (step(*carry, batch), None), carry, batches)[0]

    sharding = NamedSharding(mesh, P(None, AXIS))
    batches = jax.ShapeDtypeStruct((3, *given.batch.shape), jnp.float32, sharding=sharding)
    found = collectives(steps, (given.params, given.rest, state), batches)
    assert [one.times for one in found] == [3, 3]


def test_a_flax_module(mesh):
    module = pytest.importorskip("asam_jax.nnx", reason="needs Flax")
    from flax import nnx

    given = problem(mesh)
    model = nnx.eval_shape(lambda: nnx.Linear(128, 128, rngs=nnx.Rngs(0)))
    graphdef, params = nnx.split(model)

    def gradient(params, x):
        one = nnx.merge(graphdef, params)
        found = module.value_and_grad(lambda model, x: jnp.mean(model(x) ** 2), rho=0.5)
        return found(one, x)[1]

    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        found = collectives(gradient, compiled_steps.laid(given, params), given.batch)
    assert counts(found) == (0, 2, 0)
