"""A transformer language model in Flax Linen, with FSDP: scanned layers, bfloat16, eight devices.

The step says nothing of devices; the operator is told which leaves hold stacked layers. On a CPU:
XLA_FLAGS=--xla_force_host_platform_device_count=8 python docs/examples/linen_lm.py
"""

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import asam_jax

SYMBOLS, LENGTH, WIDTH, LAYERS, STEPS, LOW = 16, 8, 32, 2, 25, jnp.bfloat16


class Block(nn.Module):
    """Attention and a two-layer network; computes in bfloat16, with parameters in float32."""

    @nn.compact
    def __call__(self, x, mask):
        """(batch, position, width) -> the same, and None, as nn.scan wants."""
        attention = nn.MultiHeadDotProductAttention(4, dtype=LOW)
        x = x + attention(nn.LayerNorm(dtype=LOW)(x), mask=mask)
        hidden = nn.gelu(nn.Dense(4 * WIDTH, dtype=LOW)(nn.LayerNorm(dtype=LOW)(x)))
        return x + nn.Dense(WIDTH, dtype=LOW)(hidden), None


class LM(nn.Module):
    """(batch, position) -> (batch, position, symbol), logits of the next symbol in float32."""

    @nn.compact
    def __call__(self, tokens):  # noqa: D102
        x = nn.Embed(SYMBOLS, WIDTH)(tokens) + nn.Embed(LENGTH, WIDTH)(jnp.arange(tokens.shape[1]))
        stack = dict(variable_axes={"params": 0}, split_rngs={"params": True}, length=LAYERS)
        blocks = nn.scan(Block, in_axes=nn.broadcast, **stack)(name="blocks")
        x, _ = blocks(x.astype(LOW), nn.make_causal_mask(tokens))
        return nn.Dense(SYMBOLS)(nn.LayerNorm()(x.astype(jnp.float32)))


def loss_fn(params, tokens):
    """Cross-entropy of the next symbol."""
    logits = LM().apply({"params": params}, tokens[:, :-1])
    return optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:]).mean()


operator = asam_jax.elementwise(layer_axes=lambda path, leaf: (0,) if "blocks" in str(path) else ())
rate = optax.warmup_cosine_decay_schedule(0.0, 2e-2, STEPS // 10, STEPS)
tx = asam_jax.asam(optax.adamw(rate, weight_decay=1e-2), rho=0.2, operator=operator)
mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))


def cut(leaf):
    """Along the last axis that the devices divide; a leaf that has none stays whole."""
    axes = [axis for axis, size in enumerate(leaf.shape) if size % mesh.size == 0]
    return NamedSharding(mesh, P(*[None] * axes[-1], "data") if axes else P())


def placed(function, *arguments):
    """What it returns, each leaf made in the parts that the devices hold."""
    where = jax.tree.map(cut, jax.eval_shape(function, *arguments))
    return jax.jit(function, out_shardings=where)(*arguments)


@jax.jit
def step(params, state, tokens):
    """One step."""
    loss, grads = jax.value_and_grad(loss_fn)(params, tokens)
    updates, state = tx.update(grads, state, params, grad_fn=lambda p: jax.grad(loss_fn)(p, tokens))
    return optax.apply_updates(params, updates), state, loss


if __name__ == "__main__":
    first = jax.random.randint(jax.random.key(1), (STEPS, 32, 1), 0, SYMBOLS)
    data = (first + jnp.arange(LENGTH) * (1 + first % 3)) % SYMBOLS  # counts in steps of 1 to 3
    data = jax.device_put(data, NamedSharding(mesh, P(None, "data")))
    params, losses = placed(LM().init, jax.random.key(0), data[0, :, :-1])["params"], []
    state = placed(tx.init, params)
    for tokens in data:
        params, state, loss = step(params, state, tokens)
        losses.append(float(loss))
    print(f"{mesh.size} devices, loss {losses[0]:.3f} -> {losses[-1]:.3f}")
