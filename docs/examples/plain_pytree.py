"""A dictionary of arrays: asam_jax.value_and_grad in place of jax.value_and_grad.

Nothing else in a training loop changes. Runs in a few seconds: python docs/examples/plain_pytree.py
"""

import jax
import jax.numpy as jnp
import optax

import asam_jax

x = jax.random.normal(jax.random.key(0), (256, 8))
y = (x[:, 0] * x[:, 1] > 0).astype(jnp.float32)  # the sign of a product: no line separates it

keys = jax.random.split(jax.random.key(1))
params = {
    "hidden": {"kernel": jax.random.normal(keys[0], (8, 32)) / 3, "bias": jnp.zeros(32)},
    "head": {"kernel": jax.random.normal(keys[1], (32,)) / 6, "bias": jnp.zeros(())},
}


def loss_fn(params, x, y):
    """Binary cross-entropy of a network with one hidden layer."""
    hidden = jax.nn.relu(x @ params["hidden"]["kernel"] + params["hidden"]["bias"])
    logits = hidden @ params["head"]["kernel"] + params["head"]["bias"]
    return optax.sigmoid_binary_cross_entropy(logits, y).mean()


tx = optax.sgd(0.1, momentum=0.9)


@jax.jit
def step(params, state, x, y):
    """The value is that at w, the gradient that at w + eps; both on the same mini-batch."""
    loss, grads = asam_jax.value_and_grad(loss_fn, rho=2.0)(params, x, y)
    updates, state = tx.update(grads, state, params)
    return optax.apply_updates(params, updates), state, loss


if __name__ == "__main__":
    state, losses = tx.init(params), []
    for _ in range(100):
        params, state, loss = step(params, state, x, y)
        losses.append(float(loss))
    print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}")
