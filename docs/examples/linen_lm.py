"""A transformer language model in Flax Linen, with FSDP: scanned layers, bfloat16, eight devices.

On a CPU eight virtual devices stand in for real ones, by the flag below, which must be set before
JAX is imported. Nothing in the step is about devices: eps is sharded as the parameters are.
python docs/examples/linen_lm.py
"""

import os

os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=8")

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import asam_jax

SYMBOLS, LENGTH, WIDTH, LAYERS, STEPS = 16, 8, 32, 2, 40


class Block(nn.Module):
    """Attention and a two-layer network; (carry, nothing) as nn.scan wants."""

    @nn.compact
    def __call__(self, x, mask):
        """(batch, position, width) -> the same."""
        dtype = jnp.bfloat16  # of the computation; the parameters stay in float32
        h = nn.MultiHeadDotProductAttention(4, dtype=dtype)(nn.LayerNorm(dtype=dtype)(x), mask=mask)
        x = x + h
        h = nn.Dense(4 * WIDTH, dtype=dtype)(nn.LayerNorm(dtype=dtype)(x))
        return x + nn.Dense(WIDTH, dtype=dtype)(nn.gelu(h)), None


class LM(nn.Module):
    """Next-symbol logits."""

    @nn.compact
    def __call__(self, tokens):
        """(batch, position) -> (batch, position, symbol), in float32."""
        x = nn.Embed(SYMBOLS, WIDTH)(tokens) + nn.Embed(LENGTH, WIDTH)(jnp.arange(tokens.shape[1]))
        stack = dict(variable_axes={"params": 0}, split_rngs={"params": True}, length=LAYERS)
        blocks = nn.scan(nn.remat(Block), in_axes=nn.broadcast, **stack)(name="blocks")
        x, _ = blocks(x.astype(jnp.bfloat16), nn.make_causal_mask(tokens))
        return nn.Dense(SYMBOLS)(nn.LayerNorm()(x.astype(jnp.float32)))


model = LM()
mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))


def cut(leaf):
    """Along the last axis that the devices divide; leaves that have none stay whole."""
    axes = [axis for axis, size in enumerate(leaf.shape) if size % mesh.size == 0]
    return NamedSharding(mesh, P(*[None] * axes[-1], "data") if axes else P())


def loss_fn(params, tokens):
    """Cross-entropy of the next symbol."""
    logits = model.apply({"params": params}, tokens[:, :-1])
    return optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:]).mean()


# The layers are stacked along the first axis of each leaf below "blocks".
stacked = asam_jax.elementwise(layer_axes=lambda path, leaf: (0,) if "blocks" in str(path) else ())
rate = optax.warmup_cosine_decay_schedule(0.0, 3e-2, STEPS // 10, STEPS)
tx = asam_jax.asam(optax.adamw(rate, weight_decay=1e-2), rho=0.2, operator=stacked)


@jax.jit
def step(params, state, tokens):
    """One step."""
    loss, grads = jax.value_and_grad(loss_fn)(params, tokens)
    updates, state = tx.update(grads, state, params, grad_fn=lambda p: jax.grad(loss_fn)(p, tokens))
    return optax.apply_updates(params, updates), state, loss


if __name__ == "__main__":
    start = jax.random.randint(jax.random.key(1), (STEPS, 32, 1), 0, SYMBOLS)
    data = (start + jnp.arange(LENGTH) * (1 + start % 3)) % SYMBOLS  # counting in steps of 1 to 3
    params = model.init(jax.random.key(0), data[0, :, :-1])["params"]
    params = jax.device_put(params, jax.tree.map(cut, params))
    state, losses = tx.init(params), []
    for tokens in data:
        params, state, loss = step(params, state, jax.device_put(tokens, cut(tokens.T)))
        losses.append(float(loss))
    print(f"{mesh.size} devices, loss {losses[0]:.3f} -> {losses[-1]:.3f}")
