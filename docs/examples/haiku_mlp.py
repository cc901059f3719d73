"""Haiku: the parameters are a dictionary; `w` is scaled by |w| + eta, `b` and `offset` are not.

python docs/examples/haiku_mlp.py
"""

import haiku as hk
import jax
import jax.numpy as jnp
import optax

import asam_jax

x = jax.random.normal(jax.random.key(0), (256, 8))
y = (x[:, 0] * x[:, 1] > 0).astype(jnp.int32)


@hk.without_apply_rng
@hk.transform
def net(x):
    """One hidden layer with layer normalisation."""
    hidden = hk.LayerNorm(-1, create_scale=True, create_offset=True)(hk.Linear(32)(x))
    return hk.Linear(2)(jax.nn.relu(hidden))


def loss_fn(params, x, y):
    """Mean cross-entropy."""
    return optax.softmax_cross_entropy_with_integer_labels(net.apply(params, x), y).mean()


tx = asam_jax.asam(optax.sgd(0.1, momentum=0.9), rho=2.0)


@jax.jit
def step(params, state, x, y):
    """One step; grad_fn closes over the mini-batch."""
    loss, grads = jax.value_and_grad(loss_fn)(params, x, y)
    updates, state = tx.update(
        grads, state, params, grad_fn=lambda params: jax.grad(loss_fn)(params, x, y)
    )
    return optax.apply_updates(params, updates), state, loss


if __name__ == "__main__":
    params = net.init(jax.random.key(1), x)
    state, losses = tx.init(params), []
    for _ in range(100):
        params, state, loss = step(params, state, x, y)
        losses.append(float(loss))
    print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}")
