"""Flax Linen: `TrainState.apply_gradients` forwards no keywords.

So give it the gradient at w + eps, or forward them. python docs/examples/flax_linen.py
"""

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from flax.training.train_state import TrainState

import asam_jax

x = jax.random.normal(jax.random.key(0), (256, 8))
y = (x[:, 0] * x[:, 1] > 0).astype(jnp.int32)
net = nn.Sequential([nn.Dense(32), nn.relu, nn.Dense(2)])


def loss_fn(params):
    """Mean cross-entropy on the whole data."""
    logits = net.apply({"params": params}, x)
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()


@jax.jit
def step(state):
    """A usual Linen step but for one word: asam_jax's value_and_grad instead of JAX's."""
    loss, grads = asam_jax.value_and_grad(loss_fn, rho=2.0)(state.params)
    return state.apply_gradients(grads=grads), loss


class ForwardingState(TrainState):
    """For the transformation (with a schedule of rho, say): passes grad_fn on."""

    def apply_gradients(self, *, grads, grad_fn, **changes):
        """One step of `tx`, which begins with `asam_jax.sharpness_aware`."""
        updates, opt_state = self.tx.update(grads, self.opt_state, self.params, grad_fn=grad_fn)
        params = optax.apply_updates(self.params, updates)
        return self.replace(step=self.step + 1, params=params, opt_state=opt_state, **changes)


@jax.jit
def forwarding_step(state):
    """The same step by the transformation."""
    loss, grads = jax.value_and_grad(loss_fn)(state.params)
    return state.apply_gradients(grads=grads, grad_fn=jax.grad(loss_fn)), loss


if __name__ == "__main__":
    sgd, params = optax.sgd(0.1, 0.9), net.init(jax.random.key(1), x)["params"]
    plain = TrainState.create(apply_fn=net.apply, params=params, tx=sgd)
    forwarding = ForwardingState.create(
        apply_fn=net.apply, params=params, tx=asam_jax.asam(sgd, 2.0)
    )
    losses = []
    for _ in range(100):
        (plain, loss), (forwarding, same) = step(plain), forwarding_step(forwarding)
        losses.append((float(loss), float(same)))
    print(f"loss {losses[0][0]:.3f} -> {losses[-1][0]:.3f}")
    print(f"and by the transformation {losses[0][1]:.3f} -> {losses[-1][1]:.3f}")
