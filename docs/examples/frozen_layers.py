"""Fine-tuning with frozen layers: they are not in eps, in its norm, or in the update.

python docs/examples/frozen_layers.py
"""

import jax
import jax.numpy as jnp
import optax

import asam_jax

x = jax.random.normal(jax.random.key(0), (256, 8))
y = (x[:, 0] * x[:, 1] > 0).astype(jnp.float32)

# A backbone that stands for a pretrained one, and a new head.
kernels = jax.random.split(jax.random.key(1), 3)
params = {
    "backbone": {
        "first": jax.random.normal(kernels[0], (8, 128)) / 3,
        "second": jax.random.normal(kernels[1], (128, 128)) / 8,
    },
    "head": {"kernel": jax.random.normal(kernels[2], (128,)) / 11, "bias": jnp.zeros(())},
}
trains = {"backbone": False, "head": True}  # a prefix of the tree is enough


def loss_fn(params):
    """Binary cross-entropy on the whole data."""
    features = jax.nn.relu(x @ params["backbone"]["first"])
    features = jax.nn.relu(features @ params["backbone"]["second"])
    logits = features @ params["head"]["kernel"] + params["head"]["bias"]
    return optax.sigmoid_binary_cross_entropy(logits, y).mean()


tx = optax.chain(
    asam_jax.sharpness_aware(2.0, operator=asam_jax.masked(asam_jax.elementwise(), trains)),
    optax.partition({True: optax.adam(0.1), False: optax.set_to_zero()}, trains),
)


@jax.jit
def step(params, state):
    """One step. Cheaper where most is frozen: differentiate with respect to the head alone."""
    loss, grads = jax.value_and_grad(loss_fn)(params)
    updates, state = tx.update(grads, state, params, grad_fn=jax.grad(loss_fn))
    return optax.apply_updates(params, updates), state, loss


if __name__ == "__main__":
    backbone, state, losses = params["backbone"], tx.init(params), []
    for _ in range(100):
        params, state, loss = step(params, state)
        losses.append(float(loss))
    assert all(jax.tree.leaves(jax.tree.map(jnp.array_equal, backbone, params["backbone"])))
    print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}")
