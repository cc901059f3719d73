"""Gradient clipping and weight decay in the right order: in the base, clipping first.

    sharpness_aware -> clip -> decay -> momentum and learning rate

What stands before `sharpness_aware` only bends eps and is then replaced: decay there would never
reach the weights. Clipping does nothing there, since eps has the length rho whatever the
gradient's. python docs/examples/clipping_and_decay.py
"""

import jax
import jax.numpy as jnp
import optax

import asam_jax

x = jax.random.normal(jax.random.key(0), (256, 8))
y = (x[:, 0] * x[:, 1] > 0).astype(jnp.float32)

keys = jax.random.split(jax.random.key(1))
params = {
    "kernel": jax.random.normal(keys[0], (8, 32)) / 3,
    "bias": jnp.zeros(32),
    "head": jax.random.normal(keys[1], (32,)) / 6,
}


def loss_fn(params):
    """Binary cross-entropy on the whole data; weight decay is not part of it."""
    logits = jax.nn.relu(x @ params["kernel"] + params["bias"]) @ params["head"]
    return optax.sigmoid_binary_cross_entropy(logits, y).mean()


decayed = {"kernel": True, "bias": False, "head": True}
tx = optax.chain(
    asam_jax.sharpness_aware(2.0),
    optax.clip_by_global_norm(1.0),
    optax.add_decayed_weights(5e-4, mask=decayed),
    optax.sgd(0.1, momentum=0.9),
)


@jax.jit
def step(params, state):
    """One step."""
    loss, grads = jax.value_and_grad(loss_fn)(params)
    updates, state = tx.update(grads, state, params, grad_fn=jax.grad(loss_fn))
    return optax.apply_updates(params, updates), state, loss


if __name__ == "__main__":
    state, losses = tx.init(params), []
    for _ in range(100):
        params, state, loss = step(params, state)
        losses.append(float(loss))
    print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}")
