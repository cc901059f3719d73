# %% [markdown]
# # ASAM on many devices
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](COLAB/many_devices.ipynb)
#
# The same cells run on a TPU runtime and on a CPU runtime, where eight virtual devices stand in for
# real ones. The reference is
# [docs/many_devices.md](REPOSITORY/blob/main/docs/many_devices.md).

# %%
import glob
import importlib.util
import os
import pathlib
import shutil
import subprocess
import sys

tpu = glob.glob("/dev/accel*") or glob.glob("/dev/vfio/[0-9]*")
if importlib.util.find_spec("asam_jax") is None:
    source = ".." if pathlib.Path("../asam_jax").exists() else "git+REPOSITORY"  # or a checkout
    packages = [source, *(["jax[tpu]"] if tpu else [])]
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", *packages], check=True)

if not tpu and not shutil.which("nvidia-smi"):  # before JAX is imported
    os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"

import functools

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from sklearn.datasets import load_digits

import asam_jax

DEVICES = jax.device_count()
print(DEVICES, "devices:", jax.devices()[0].platform)

# %% [markdown]
# ## A problem
#
# Digits with 40% wrong labels, in batches of 128: every device gets its share of a batch.

# %%
digits = load_digits()
x = (digits.data / 16).astype(np.float32)
random = np.random.default_rng(0)
wrong = random.random(len(x)) < 0.4
y = np.where(wrong, random.integers(0, 10, len(x)), digits.target).astype(np.int32)

BATCH, STEPS, WIDTH = 128, 50, 128
keys = jax.random.split(jax.random.key(0))
start = {
    "hidden": jax.random.normal(keys[0], (64, WIDTH)) * jnp.sqrt(2 / 64),
    "head": jax.random.normal(keys[1], (WIDTH, 16)) * jnp.sqrt(1 / WIDTH),  # 6 unused classes
}
base = optax.sgd(0.1, momentum=0.9)


def loss_fn(params, x, y):
    logits = jax.nn.relu(x @ params["hidden"]) @ params["head"]
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()


def batches():
    order = np.random.default_rng(1)
    for _ in range(STEPS):
        index = order.choice(len(x), BATCH, replace=False)
        yield x[index], y[index]


# %% [markdown]
# ## One device

# %%
tx = asam_jax.asam(base, rho=2.0)


@jax.jit
def step(params, state, x, y):
    grad_fn = lambda params: jax.grad(loss_fn)(params, x, y)
    loss, grads = jax.value_and_grad(loss_fn)(params, x, y)
    updates, state = tx.update(grads, state, params, grad_fn=grad_fn)
    return optax.apply_updates(params, updates), state, loss


def train(step, params, state):
    losses = []
    for x, y in batches():
        params, state, loss = step(params, state, x, y)
        losses.append(float(loss))  # waits: a CPU with few cores must not queue collectives
    return jax.device_get(params), np.array(losses)


one_device, losses_of_one = train(step, start, tx.init(start))

# %% [markdown]
# ## jit with sharded arrays
#
# Nothing changes in the step: the arrays say where they lie. The batch is split over all devices, and
# so are the parameters (as FSDP does it). The norm in eps is over all parameters and all examples, so
# the result is that of one device, up to the order of its sums.

# %%
mesh = jax.make_mesh((DEVICES,), ("data",), axis_types=(AxisType.Auto,))
split = NamedSharding(mesh, P("data"))


def sharded_step(params, state, x, y):
    x, y = (jax.device_put(a, split) for a in (x, y))
    return step(params, state, x, y)


params = jax.tree.map(lambda a: jax.device_put(a, split), start)
sharded, losses_of_sharded = train(sharded_step, params, tx.init(params))
assert all(np.allclose(sharded[name], one_device[name], atol=1e-3) for name in start)
print(f"largest difference in the loss: {np.abs(losses_of_sharded - losses_of_one).max():.0e}")

# %% [markdown]
# ## pmap
#
# Here every device runs the step on its own share, so it must be said whose gradient makes eps.
# `axis_name` averages the gradient at w + eps; `perturb_axis_name` is the choice:
#
# - `None`, the default: each device has its own eps. That is m-sharpness with m the share of one device,
#   and it saves one exchange of gradients.
# - the same axis: one eps for all, as on one device.


# %%
def pmapped(perturb_axis_name):
    tx = asam_jax.asam(base, rho=2.0, axis_name="data", perturb_axis_name=perturb_axis_name)

    @functools.partial(jax.pmap, axis_name="data")
    def step(params, state, x, y):
        grad_fn = lambda params: jax.grad(loss_fn)(params, x, y)
        loss, grads = jax.value_and_grad(loss_fn)(params, x, y)
        updates, state = tx.update(grads, state, params, grad_fn=grad_fn)
        return optax.apply_updates(params, updates), state, jax.lax.pmean(loss, "data")

    def on_all(params, state, x, y):
        x, y = (a.reshape(DEVICES, -1, *a.shape[1:]) for a in (x, y))
        params, state, loss = step(params, state, x, y)
        return params, state, loss[0]

    copies = jax.tree.map(lambda a: np.broadcast_to(a, (DEVICES, *a.shape)), start)
    state = jax.tree.map(lambda a: np.broadcast_to(a, (DEVICES, *a.shape)), tx.init(start))
    params, losses = train(on_all, copies, state)
    assert all((a == a[:1]).all() for a in jax.tree.leaves(params))  # all devices agree
    return losses


losses_of_shared = pmapped("data")
losses_of_own = pmapped(None)
for label, losses in [("one eps for all", losses_of_shared), ("own eps for each", losses_of_own)]:
    print(f"{label}, largest difference in the loss: {np.abs(losses - losses_of_one).max():.0e}")

# %% [markdown]
# ## shard_map
#
# The same by `jax.shard_map`, with `asam_jax.value_and_grad`, which takes each device's own gradient at
# replicated parameters.

# %%
gradient = asam_jax.value_and_grad(loss_fn, rho=2.0, axis_name="data", perturb_axis_name="data")
share = (P(), P("data"), P("data"))
mapped = jax.jit(jax.shard_map(gradient, mesh=mesh, in_specs=share, out_specs=P()))
first = next(batches())
loss, grads = jax.device_get(mapped(start, *first))
expected = jax.device_get(jax.jit(asam_jax.value_and_grad(loss_fn, rho=2.0))(start, *first))[1]
assert all(np.allclose(grads[name], expected[name], atol=1e-5) for name in grads)

# %% [markdown]
# ## Side by side
#
# How far the loss at each step is from that of one device.

# %%
figure, axis = plt.subplots(figsize=(6, 3.6))
for label, losses, color in [
    ("jit, sharded", losses_of_sharded, "tab:green"),
    ("pmap, one eps for all", losses_of_shared, "tab:blue"),
    ("pmap, each its own eps", losses_of_own, "tab:red"),
]:
    axis.plot(np.abs(losses - losses_of_one) + 1e-8, color=color, label=label)
axis.set_yscale("log")
axis.set(xlabel="step", ylabel="difference in the loss", ylim=(1e-8, 100))
axis.set_title(f"ASAM on {DEVICES} devices against one", fontsize=11)
axis.legend(loc="upper right")
plt.show()

# %% [markdown]
# Sharded arrays and a shared eps compute what one device computes, to rounding. An eps for each device
# is another method, with a group size m that changes with the number of devices: choose it knowingly.
