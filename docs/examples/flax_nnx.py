"""Flax NNX: `nnx.Optimizer.update` forwards keywords, so it takes `grad_fn` as it is.

python docs/examples/flax_nnx.py
"""

import jax
import jax.numpy as jnp
import optax
from flax import nnx

import asam_jax

x = jax.random.normal(jax.random.key(0), (256, 8))
y = (x[:, 0] * x[:, 1] > 0).astype(jnp.int32)


class Net(nnx.Module):
    """One hidden layer, with dropout."""

    def __init__(self, rngs):
        self.hidden = nnx.Linear(8, 32, rngs=rngs)
        self.dropout = nnx.Dropout(0.1)
        self.head = nnx.Linear(32, 2, rngs=rngs)

    def __call__(self, x, rngs):
        """Logits; `rngs` draws the dropped units."""
        return self.head(self.dropout(nnx.relu(self.hidden(x)), rngs=rngs))


@nnx.jit
def step(model, optimizer, x, y, key):
    """One step; the key is split outside, so that both passes drop the same units."""
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)

    def loss_fn(params):
        logits = nnx.merge(graphdef, params, rest)(x, nnx.Rngs(dropout=key))
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    loss, grads = jax.value_and_grad(loss_fn)(params)
    optimizer.update(model, grads, grad_fn=jax.grad(loss_fn))
    return loss


if __name__ == "__main__":
    model = Net(nnx.Rngs(1))
    optimizer = nnx.Optimizer(model, asam_jax.asam(optax.sgd(0.1, 0.9), rho=0.5), wrt=nnx.Param)
    losses = [
        float(step(model, optimizer, x, y, key)) for key in jax.random.split(jax.random.key(2), 100)
    ]
    print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}")
