"""Equinox: differentiate with respect to the arrays of the model, and combine inside the loss.

For convolutions, Equinox's kernels are (out, in, *spatial): use
`filterwise(filter_axes=asam_jax.torch_filter_axes)`. python docs/examples/equinox_mlp.py
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

import asam_jax

x = jax.random.normal(jax.random.key(0), (256, 8))
y = (x[:, 0] * x[:, 1] > 0).astype(jnp.int32)

model = eqx.nn.MLP(in_size=8, out_size=2, width_size=32, depth=1, key=jax.random.key(1))
tx = asam_jax.asam(optax.sgd(0.1, momentum=0.9), rho=2.0)


@eqx.filter_jit
def step(model, state, x, y):
    """One step on the model's inexact arrays; integers and functions stay in `static`."""
    params, static = eqx.partition(model, eqx.is_inexact_array)

    def loss_fn(params):
        logits = jax.vmap(eqx.combine(params, static))(x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    loss, grads = jax.value_and_grad(loss_fn)(params)
    updates, state = tx.update(grads, state, params, grad_fn=jax.grad(loss_fn))
    return eqx.apply_updates(model, updates), state, loss


if __name__ == "__main__":
    state, losses = tx.init(eqx.filter(model, eqx.is_inexact_array)), []
    for _ in range(100):
        model, state, loss = step(model, state, x, y)
        losses.append(float(loss))
    print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}")
