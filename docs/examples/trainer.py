"""A trainer that owns the gradient: `alternating` takes two calls of its step for each mini-batch.

It accumulates over microbatches and computes in bfloat16; parameters, eps and optimizer stay in
float32. python docs/examples/trainer.py
"""

import functools

import jax
import jax.numpy as jnp
import optax

import asam_jax


class Trainer:
    """The loss goes in, steps come out; no caller hands a function to the optimizer."""

    def __init__(self, loss, params, base, rho, *, microbatches=1, dtype=jnp.float32):
        self.loss, self.microbatches, self.dtype = loss, microbatches, dtype
        self.tx = asam_jax.alternating(base, rho)
        self.params, self.state = params, self.tx.init(params)

    @functools.partial(jax.jit, static_argnums=0)
    def backward(self, params, *batch):
        """Value and gradient of the whole mini-batch, one microbatch after the other."""

        def low(params, *batch):
            return self.loss(*jax.tree.map(lambda a: a.astype(self.dtype), (params, *batch)))

        microbatches = zip(*(jnp.split(a, self.microbatches) for a in batch), strict=True)
        found = [jax.value_and_grad(low)(params, *microbatch) for microbatch in microbatches]
        return jax.tree.map(lambda *a: sum(a) / self.microbatches, *found)

    @functools.partial(jax.jit, static_argnums=0)
    def apply(self, params, state, grads):
        """One call of the optimizer."""
        updates, state = self.tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    def step(self, *batch):
        """Two passes over the same mini-batch. Evaluate and save between two steps, not in one."""
        value, grads = self.backward(self.params, *batch)  # at w: the loss to report
        self.params, self.state = self.apply(self.params, self.state, grads)  # now w + eps
        _, grads = self.backward(self.params, *batch)
        self.params, self.state = self.apply(self.params, self.state, grads)
        return value


def loss_fn(params, x, y):
    """Binary cross-entropy of a network with one hidden layer."""
    logits = jax.nn.relu(x @ params["kernel"] + params["bias"]) @ params["head"]
    return optax.sigmoid_binary_cross_entropy(logits, y).mean()


if __name__ == "__main__":
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], (256, 8))
    y = (x[:, 0] * x[:, 1] > 0).astype(jnp.float32)
    params = {
        "kernel": jax.random.normal(keys[1], (8, 32)) / 3,
        "bias": jnp.zeros(32),
        "head": jax.random.normal(keys[2], (32,)) / 6,
    }
    base = optax.sgd(0.1, momentum=0.9)
    trainer = Trainer(loss_fn, params, base, rho=2.0, microbatches=2, dtype=jnp.bfloat16)
    losses = [float(trainer.step(x, y)) for _ in range(100)]
    print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}")
