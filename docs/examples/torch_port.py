"""The port of a PyTorch loop that uses davda54/sam, BatchNorm included.

Before:

    optimizer = SAM(model.parameters(), torch.optim.SGD, rho=0.5, adaptive=True, lr=0.1,
                    momentum=0.9, weight_decay=5e-4)
    scheduler = CosineAnnealingLR(optimizer.base_optimizer, STEPS)
    for x, y in batches:
        enable_running_stats(model)
        loss = cross_entropy(model(x), y)
        loss.backward()
        optimizer.first_step(zero_grad=True)
        disable_running_stats(model)
        cross_entropy(model(x), y).backward()
        optimizer.second_step(zero_grad=True)
        scheduler.step()

After: the code below. python docs/examples/torch_port.py
"""

import jax
import jax.numpy as jnp
import optax
from flax import nnx

import asam_jax.nnx

STEPS = 80
x = jax.random.normal(jax.random.key(0), (256, 8))
y = (x[:, 0] * x[:, 1] > 0).astype(jnp.int32)


def cross_entropy(model, x, y):
    """Of a mini-batch."""
    return optax.softmax_cross_entropy_with_integer_labels(model(x), y).mean()


rngs = nnx.Rngs(1)
model = nnx.Sequential(
    nnx.Linear(8, 32, rngs=rngs),
    nnx.BatchNorm(32, rngs=rngs),
    nnx.relu,
    nnx.Linear(32, 2, rngs=rngs),
)
# adaptive=True scales every leaf by |w|, biases too, and has no eta, as here.
gradient = asam_jax.nnx.value_and_grad(cross_entropy, rho=0.5)
# PyTorch adds the weight decay to the gradient, before the momentum; the schedule counts steps.
schedule = optax.cosine_decay_schedule(0.1, STEPS)
base = optax.chain(optax.add_decayed_weights(5e-4), optax.sgd(schedule, momentum=0.9))
optimizer = nnx.Optimizer(model, base, wrt=nnx.Param)


@nnx.jit
def step(model, optimizer, x, y):
    """Both passes. The running statistics are those of the first, as with disable_running_stats."""
    loss, grads = gradient(model, x, y)
    optimizer.update(model, grads)
    return loss


if __name__ == "__main__":
    losses = [float(step(model, optimizer, x, y)) for _ in range(STEPS)]
    print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}")
