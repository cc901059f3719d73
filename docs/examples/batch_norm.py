"""BatchNorm, with filter-wise scales: running statistics are those of the unperturbed pass."""

import jax
import jax.numpy as jnp
import optax
from flax import nnx

import asam_jax

# Noisy images, brighter on the left or on the right.
y = jax.random.bernoulli(jax.random.key(0), shape=(128,)).astype(jnp.int32)
bright = jnp.where(jnp.arange(8) < 4, 1 - y[:, None], y[:, None])  # example, column
x = bright[:, None, :, None] + 2 * jax.random.normal(jax.random.key(1), (128, 8, 8, 1))


class Net(nnx.Module):
    """Convolution, BatchNorm, dense."""

    def __init__(self, rngs):
        self.conv = nnx.Conv(1, 8, (3, 3), strides=2, use_bias=False, rngs=rngs)
        self.norm = nnx.BatchNorm(8, momentum=0.9, rngs=rngs)
        self.head = nnx.Linear(8 * 16, 2, rngs=rngs)

    def __call__(self, x):
        """Logits."""
        return self.head(nnx.relu(self.norm(self.conv(x))).reshape(len(x), -1))


graphdef, params, stats = nnx.split(Net(nnx.Rngs(2)), nnx.Param, nnx.BatchStat)
tx = optax.sgd(0.05, momentum=0.9)


def loss_fn(params, stats, x, y):
    """The loss, and as auxiliary output the statistics that this pass leaves behind."""
    model = nnx.merge(graphdef, params, stats, copy=True)
    losses = optax.softmax_cross_entropy_with_integer_labels(model(x), y)
    return losses.mean(), nnx.state(model, nnx.BatchStat)


@jax.jit
def step(params, stats, state, x, y):
    """Loss and statistics from the pass at w, the gradient from the pass at w + eps."""
    grad = asam_jax.value_and_grad(loss_fn, rho=0.5, operator=asam_jax.filterwise(), has_aux=True)
    (loss, stats), grads = grad(params, stats, x, y)
    updates, state = tx.update(grads, state, params)
    return optax.apply_updates(params, updates), stats, state, loss


if __name__ == "__main__":
    state, losses = tx.init(params), []
    for _ in range(60):
        params, stats, state, loss = step(params, stats, state, x, y)
        losses.append(float(loss))
    print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}")
    model = nnx.merge(graphdef, params, stats)
    model.eval()  # the running statistics
    print(f"accuracy in evaluation mode {(model(x).argmax(-1) == y).mean():.3f}")
