"""Keras 3 on the JAX backend: a loop over `stateless_call`.

Keras' variables have no names in the list of arrays; a leaf with at most one axis longer than 1
counts as a bias there. python docs/examples/keras_jax.py
"""

import os

os.environ["KERAS_BACKEND"] = "jax"

import jax
import jax.numpy as jnp
import keras
import optax

import asam_jax

x = jax.random.normal(jax.random.key(0), (256, 8))
y = (x[:, 0] * x[:, 1] > 0).astype(jnp.int32)

keras.utils.set_random_seed(1)
layers = [keras.layers.Dense(32), keras.layers.BatchNormalization(), keras.layers.ReLU()]
model = keras.Sequential([keras.Input((8,)), *layers, keras.layers.Dense(2)])


def loss_fn(params, others, x, y):
    """The loss, and as auxiliary output the running statistics that this pass leaves behind."""
    logits, others = model.stateless_call(params, others, x, training=True)
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean(), others


gradient = asam_jax.value_and_grad(loss_fn, rho=2.0, has_aux=True)
tx = optax.adamw(1e-2)


@jax.jit
def step(params, others, state, x, y):
    """One step; the statistics are those of the pass at w."""
    (loss, others), grads = gradient(params, others, x, y)
    updates, state = tx.update(grads, state, params)
    return optax.apply_updates(params, updates), others, state, loss


if __name__ == "__main__":
    params = [v.value for v in model.trainable_variables]
    others = [v.value for v in model.non_trainable_variables]
    state, losses = tx.init(params), []
    for _ in range(60):
        params, others, state, loss = step(params, others, state, x, y)
        losses.append(float(loss))
    for variable, value in zip(model.trainable_variables, params, strict=True):
        variable.assign(value)
    for variable, value in zip(model.non_trainable_variables, others, strict=True):
        variable.assign(value)
    print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}")
