"""LoRA fine-tuning: the adapters are the parameters, the pretrained weights are closed over.

Adapters start with B = 0, so that at first eps moves B alone, by rho eta. With the default, 0,
there would be no perturbation at all: keep eta of the size that B's entries reach.
python docs/examples/lora.py
"""

import jax
import jax.numpy as jnp
import optax

import asam_jax

RANK = 4
keys = jax.random.split(jax.random.key(0), 6)
x = jax.random.normal(keys[0], (256, 16))
# Stands for a pretrained network.
pretrained = [jax.random.normal(key, (16, 16)) / 4 for key in keys[1:3]]
shift = jax.random.normal(keys[3], (16, RANK)) @ jax.random.normal(keys[4], (RANK, 16)) / 4


def network(weights, x):
    """A dense network."""
    return jnp.tanh(x @ weights[0]) @ weights[1]


target = network([pretrained[0] + shift, pretrained[1]], x)  # a low-rank change of one layer


def loss_fn(adapters, x, target):
    """The network with W + A B for each W."""
    weights = [w + a["A"] @ a["B"] for w, a in zip(pretrained, adapters, strict=True)]
    return jnp.mean((network(weights, x) - target) ** 2)


operator = asam_jax.elementwise(eta=0.05)
tx = asam_jax.asam(optax.adamw(1e-2), rho=0.1, operator=operator)


@jax.jit
def step(adapters, state, x, target):
    """One step; no gradient of the pretrained weights is taken."""
    loss, grads = jax.value_and_grad(loss_fn)(adapters, x, target)
    updates, state = tx.update(
        grads, state, adapters, grad_fn=lambda adapters: jax.grad(loss_fn)(adapters, x, target)
    )
    return optax.apply_updates(adapters, updates), state, loss


if __name__ == "__main__":
    adapters = [
        {"A": jax.random.normal(key, (16, RANK)) / 4, "B": jnp.zeros((RANK, 16))}
        for key in jax.random.split(keys[5])
    ]
    state, losses = tx.init(adapters), []
    for _ in range(100):
        adapters, state, loss = step(adapters, state, x, target)
        losses.append(float(loss))
    print(f"loss {losses[0]:.4f} -> {losses[-1]:.4f}")
