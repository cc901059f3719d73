"""Every variant compiles for eight TPU v5e chips, and communicates no more than it must.

No TPU is needed, but its compiler: pip install -e '.[tpu-compile]'.
"""

import os

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.experimental.compilation_cache import compilation_cache
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import asam_jax
from experiments.benchmarks import hlo
from experiments.benchmarks.compiled_steps import own_first

pytest.importorskip("libtpu", reason="needs the TPU compiler: pip install -e '.[tpu-compile]'")

WIDTH, ROWS, AXIS = 128, 256, "chips"
# A gradient of 2 kernels and 2 biases; what eps or a rule reduces beside it is small.
SMALL = 1024


@pytest.fixture(scope="module", autouse=True)
def full_compilation():
    """As users compile, and never from a cache: without a device no program is read from it."""
    jax.config.update("jax_disable_most_optimizations", False)
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()  # which remembers whether it is used
    yield
    jax.config.update("jax_enable_compilation_cache", True)
    compilation_cache.reset_cache()


@pytest.fixture(scope="module")
def mesh():
    from jax.experimental import topologies

    # No metadata server is asked, and another process may have the compiler, too.
    os.environ |= {"TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}
    found = topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x4")
    return Mesh(np.array(found.devices), (AXIS,))


def loss(params, x):
    for layer in params.values():
        x = jnp.tanh(x @ layer["kernel"].astype(x.dtype) + layer["bias"].astype(x.dtype)[None])
    return jnp.mean(jnp.square(x))


def shapes(mesh, sharded=False, dtype=jnp.float32):
    def of(*shape):
        spec = P(AXIS) if sharded else P()
        return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, spec))

    return {name: {"kernel": of(WIDTH, WIDTH), "bias": of(WIDTH)} for name in ("first", "second")}


def rows(mesh, *before, spec=(AXIS,)):
    sharding = NamedSharding(mesh, P(*spec))
    return jax.ShapeDtypeStruct((*before, ROWS, WIDTH), jnp.float32, sharding=sharding)


def laid(mesh, params, tree):
    """Shapes of an optimizer's state, sharded as the parameters of their shape."""
    by_shape = {leaf.shape: leaf.sharding for leaf in jax.tree.leaves(params)}

    def lay(leaf):
        sharding = by_shape.get(leaf.shape, NamedSharding(mesh, P()))
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    return jax.tree.map(lay, tree)


def step_of(tx, grads_at=lambda params, state: params, part=lambda x: x, perturb=None):
    extra = {} if perturb is None else {"perturb": perturb}
    tx = optax.with_extra_args_support(tx)

    def step(params, state, x):
        grad_fn = lambda w: jax.grad(loss)(w, x)  # noqa: E731
        grads = jax.grad(loss)(grads_at(params, state), part(x))
        updates, state = tx.update(grads, state, params, grad_fn=grad_fn, **extra)
        return optax.apply_updates(params, updates), state

    return step


def compiled(step, *arguments):
    return hlo.Program(jax.jit(step).lower(*arguments).compile().as_text()).collectives(8)


def counts(found):
    """Collectives that move (gathers and the like), all-reduces of a gradient, small ones."""
    reduces = [one for one in found if one.kind in ("all-reduce", "reduce-scatter")]
    small = [one for one in reduces if one.bytes < SMALL]
    return len(found) - len(reduces), len(reduces) - len(small), len(small)


def of(mesh, tx, sharded=False, dtype=jnp.float32, **how):
    params = shapes(mesh, sharded, dtype)
    state = laid(mesh, params, jax.eval_shape(tx.init, params))
    return counts(compiled(step_of(tx, **how), params, state, rows(mesh)))


def base():
    return optax.sgd(0.1, momentum=0.9)


def asam(**how):
    return asam_jax.asam(base(), 0.5, **how)


MASK = {"first": False, "second": True}
TWO_GRADIENTS = {
    "exact": asam(),
    "sam": asam_jax.sam(base()),
    "p = 1": asam(p=1.0),
    "p = 1.5": asam(p=1.5),
    "p = inf": asam(p=float("inf")),
    "filter-wise": asam(operator=asam_jax.filterwise()),
    "masked": asam(operator=asam_jax.masked(asam_jax.elementwise(), MASK)),
    "friendly": asam(ascent=asam_jax.friendly_ascent()),
    "gsam": asam(descent=asam_jax.gsam_descent(0.3)),
    "wsam": asam(descent=asam_jax.wsam_descent(0.7)),
    "stable": asam(descent=asam_jax.stable_descent()),
    "decoupled": asam_jax.decoupled_wsam(base(), 0.1, 0.5),
    "every": asam(every=4),
    "looksam": asam(every=4, descent=asam_jax.looksam_descent(0.7)),
}


@pytest.mark.parametrize("name", TWO_GRADIENTS)
def test_a_second_gradient_is_one_more_all_reduce(mesh, name):
    """Of the replicated parameters' gradient; norms and inner products are each chip's own."""
    assert of(mesh, TWO_GRADIENTS[name]) == (0, 2, 0)


def test_one_gradient_a_step_is_one_all_reduce(mesh):
    momentum = lambda state: optax.tree.get(state, "trace")  # noqa: E731
    at = lambda params, state: asam_jax.momentum_ascent(params, momentum(state), rho=0.5)  # noqa: E731
    assert of(mesh, base()) == of(mesh, base(), grads_at=at) == (0, 1, 0)
    for perturb in (True, False):
        assert of(mesh, asam_jax.alternating(base(), 0.5), perturb=perturb) == (0, 1, 0)


def test_bfloat16_parameters(mesh):
    assert of(mesh, asam(), dtype=jnp.bfloat16) == (0, 2, 0)


@pytest.mark.parametrize("name", ["exact", "p = inf", "gsam", "looksam"])
def test_sharded_parameters_gather_no_more_and_eps_adds_one_small_all_reduce(mesh, name):
    gathers, reduces, small = of(mesh, base(), sharded=True)
    more = {"exact": 1, "p = inf": 1, "gsam": 3, "looksam": 5}
    found = of(mesh, TWO_GRADIENTS[name], sharded=True)
    assert found[0] <= 2 * gathers and found[1] <= 2 * reduces
    assert found[2] <= 2 * small + more[name]


def test_a_subset_of_each_device_is_not_spread_again(mesh):
    """Where `x[:n]` would lie on the first devices and be sent to the others."""
    whole = of(mesh, asam())
    assert of(mesh, asam(), part=lambda x: own_first(x, mesh, 4)) == whole
    assert of(mesh, asam(), part=lambda x: x[: ROWS // 4]) != whole


def test_each_device_its_own_eps_in_shard_map(mesh):
    tx = asam(axis_name=AXIS)
    local = lambda params, state: jax.lax.pcast(params, AXIS, to="varying")  # noqa: E731
    specs = dict(in_specs=(P(), P(), P(AXIS)), out_specs=P())
    step = jax.shard_map(step_of(tx, grads_at=local), mesh=mesh, **specs)
    params = shapes(mesh)
    state = laid(mesh, params, jax.eval_shape(tx.init, params))
    assert counts(compiled(step, params, state, rows(mesh))) == (0, 1, 0)


def test_pmap(mesh):
    tx = asam(axis_name=AXIS, perturb_axis_name=AXIS)
    devices = list(mesh.devices.flat)
    step = jax.pmap(step_of(tx), axis_name=AXIS, devices=devices, in_axes=(None, None, 0))
    params = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), shapes(mesh))
    x = jax.ShapeDtypeStruct((8, ROWS // 8, WIDTH), jnp.float32)
    text = step.lower(params, jax.eval_shape(tx.init, params), x).compile().as_text()
    assert counts(hlo.Program(text).collectives(8)) == (0, 2, 0)


def test_a_scan_over_steps(mesh):
    tx, params = asam(), shapes(mesh)
    one = step_of(tx)

    def steps(params, state, xs):
        return jax.lax.scan(lambda c, x: (one(*c, x), None), (params, state), xs)[0]

    state = laid(mesh, params, jax.eval_shape(tx.init, params))
    found = compiled(steps, params, state, rows(mesh, 3, spec=(None, AXIS)))
    assert [one.times for one in found] == [3, 3]


def test_a_flax_module(mesh):
    module = pytest.importorskip("asam_jax.nnx", reason="needs Flax")
    from flax import nnx

    model = nnx.eval_shape(lambda: nnx.Linear(WIDTH, WIDTH, rngs=nnx.Rngs(0)))
    graphdef, params = nnx.split(model)
    replicated = NamedSharding(mesh, P())
    lay = lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=replicated)  # noqa: E731

    def gradient(params, x):
        one = nnx.merge(graphdef, params)
        found = module.value_and_grad(lambda model, x: jnp.mean(model(x) ** 2), rho=0.5)
        return found(one, x)[1]

    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        found = compiled(gradient, jax.tree.map(lay, params), rows(mesh))
    assert counts(found) == (0, 2, 0)
