"""ASAM with AdamW: a one-layer transformer learns to reverse sequences of eight symbols.

AdamW's weight decay and moments see the gradient at w + eps; the ascent sees neither.
python docs/examples/transformer_adamw.py
"""

import jax
import jax.numpy as jnp
import optax
from flax import nnx

import asam_jax

SYMBOLS, LENGTH, WIDTH, STEPS = 10, 8, 32, 100


class Block(nnx.Module):
    """Embeddings, attention, a two-layer network, logits."""

    def __init__(self, rngs):
        self.symbol = nnx.Embed(SYMBOLS, WIDTH, rngs=rngs)
        self.position = nnx.Embed(LENGTH, WIDTH, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(4, WIDTH, use_bias=False, decode=False, rngs=rngs)
        self.before, self.after = nnx.RMSNorm(WIDTH, rngs=rngs), nnx.RMSNorm(WIDTH, rngs=rngs)
        self.up = nnx.Linear(WIDTH, 2 * WIDTH, rngs=rngs)
        self.down = nnx.Linear(2 * WIDTH, WIDTH, rngs=rngs)
        self.logits = nnx.Linear(WIDTH, SYMBOLS, rngs=rngs)

    def __call__(self, tokens):
        """(batch, position) -> (batch, position, symbol)."""
        x = self.symbol(tokens) + self.position(jnp.arange(LENGTH))
        x = x + self.attention(self.before(x))
        return self.logits(x + self.down(nnx.gelu(self.up(self.after(x)))))


graphdef, params = nnx.split(Block(nnx.Rngs(0)))
rate = optax.warmup_cosine_decay_schedule(0.0, 1e-2, STEPS // 10, STEPS)
tx = asam_jax.asam(optax.adamw(rate, weight_decay=1e-2), rho=0.2)


@jax.jit
def step(params, state, tokens):
    """One step on one batch; the same batch in both passes."""

    def loss_fn(params):
        logits = nnx.merge(graphdef, params)(tokens)
        return optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, ::-1]).mean()

    loss, grads = jax.value_and_grad(loss_fn)(params)
    updates, state = tx.update(grads, state, params, grad_fn=jax.grad(loss_fn))
    return optax.apply_updates(params, updates), state, loss


if __name__ == "__main__":
    state, losses = tx.init(params), []
    for key in jax.random.split(jax.random.key(1), STEPS):
        params, state, loss = step(params, state, jax.random.randint(key, (64, LENGTH), 0, SYMBOLS))
        losses.append(float(loss))
    print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}")
