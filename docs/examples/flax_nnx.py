"""Flax NNX with BatchNorm and dropout: `asam_jax.nnx.value_and_grad` in place of nnx's.

Statistics and the random stream move once a step, by the pass at w, and both passes drop the same
units. python docs/examples/flax_nnx.py
"""

import jax
import jax.numpy as jnp
import optax
from flax import nnx

import asam_jax.nnx

x = jax.random.normal(jax.random.key(0), (256, 8))
y = (x[:, 0] * x[:, 1] > 0).astype(jnp.int32)


class Net(nnx.Module):
    """One hidden layer."""

    def __init__(self, rngs):
        self.hidden, self.head = nnx.Linear(8, 32, rngs=rngs), nnx.Linear(32, 2, rngs=rngs)
        self.norm, self.dropout = nnx.BatchNorm(32, rngs=rngs), nnx.Dropout(0.1, rngs=rngs)

    def __call__(self, x):
        """Logits."""
        return self.head(self.dropout(nnx.relu(self.norm(self.hidden(x)))))


def loss_fn(model, x, y):
    """Mean cross-entropy."""
    return optax.softmax_cross_entropy_with_integer_labels(model(x), y).mean()


@nnx.jit
def step(model, optimizer, x, y):
    """One step."""
    loss, grads = asam_jax.nnx.value_and_grad(loss_fn, rho=2.0)(model, x, y)
    optimizer.update(model, grads)
    return loss


if __name__ == "__main__":
    model = Net(nnx.Rngs(1))
    optimizer = nnx.Optimizer(model, optax.adamw(1e-2), wrt=nnx.Param)
    losses = [float(step(model, optimizer, x, y)) for _ in range(60)]
    print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}")
    model.eval()  # the running statistics, no dropout
    print(f"accuracy in evaluation mode {(model(x).argmax(-1) == y).mean():.3f}")
