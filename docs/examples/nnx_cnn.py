"""A Flax NNX CNN: BatchNorm, dropout, AdamW, a cosine schedule, clipping, accumulation, resuming.

Each of two microbatches has its own eps, and AdamW takes the mean of their gradients. Training goes
on from an Orbax checkpoint with the same bits. python docs/examples/nnx_cnn.py
"""

import pathlib
import tempfile

import jax
import jax.numpy as jnp
import optax
import orbax.checkpoint as ocp
from flax import nnx

import asam_jax.nnx

STEPS, EXAMPLES = 32, 64  # microbatches, and the size of one


class Net(nnx.Module):
    """Convolution, BatchNorm, dropout, dense."""

    def __init__(self, rngs):
        self.conv = nnx.Conv(1, 8, (3, 3), strides=2, use_bias=False, rngs=rngs)
        self.norm, self.drop = nnx.BatchNorm(8, rngs=rngs), nnx.Dropout(0.1, rngs=rngs)
        self.head = nnx.Linear(8 * 16, 2, rngs=rngs)

    def __call__(self, x):
        """Logits."""
        return self.head(self.drop(nnx.relu(self.norm(self.conv(x))).reshape(len(x), -1)))


def batch_of(number):
    """Noisy images, brighter on the left or on the right; the same for the same number."""
    keys = jax.random.split(jax.random.key(number))
    y = jax.random.bernoulli(keys[0], shape=(EXAMPLES,)).astype(jnp.int32)
    bright = jnp.where(jnp.arange(8) < 4, 1 - y[:, None], y[:, None])
    return bright[:, None, :, None] + jax.random.normal(keys[1], (EXAMPLES, 8, 8, 1)), y


def loss_fn(model, x, y):
    """Mean cross-entropy."""
    return optax.softmax_cross_entropy_with_integer_labels(model(x), y).mean()


def new():
    """A model and its optimizer."""
    model = Net(nnx.Rngs(0))
    adamw = optax.adamw(optax.cosine_decay_schedule(1e-2, STEPS // 2), weight_decay=1e-3)
    base = optax.MultiSteps(optax.chain(optax.clip_by_global_norm(1.0), adamw), 2)
    return model, nnx.Optimizer(model, base.gradient_transformation(), wrt=nnx.Param)


@nnx.jit
def step(model, optimizer, x, y):
    """One microbatch."""
    loss, grads = asam_jax.nnx.value_and_grad(loss_fn, rho=2.0)(model, x, y)
    optimizer.update(model, grads)
    return loss


if __name__ == "__main__":
    model, optimizer = new()
    path = pathlib.Path(tempfile.mkdtemp()) / "halfway"
    losses = []
    with ocp.StandardCheckpointer() as checkpointer:
        for number in range(STEPS):
            if number == STEPS // 2:
                checkpointer.save(path, nnx.to_pure_dict(nnx.state((model, optimizer))))
                checkpointer.wait_until_finished()
            losses.append(float(step(model, optimizer, *batch_of(number))))
        resumed = new()
        state = nnx.state(resumed)
        nnx.replace_by_pure_dict(state, checkpointer.restore(path, nnx.to_pure_dict(state)))
    nnx.update(resumed, state)
    again = [float(step(*resumed, *batch_of(number))) for number in range(STEPS // 2, STEPS)]
    assert again == losses[STEPS // 2 :]  # the same bits
    print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}")
