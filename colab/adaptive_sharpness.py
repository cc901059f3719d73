# %% [markdown]
# # Measuring sharpness, and rescaling a layer
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](COLAB/adaptive_sharpness.ipynb)
#
# Sharpness is how much the loss can rise near the weights. Train networks by three methods, measure
# them, then multiply one layer by a and divide the next by a: the function stays, and a measure of
# generalization should stay, too. Which one does?

# %%
import importlib.util
import pathlib
import subprocess
import sys

if importlib.util.find_spec("asam_jax") is None:
    source = ".." if pathlib.Path("../asam_jax").exists() else "git+REPOSITORY"  # or a checkout
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", source], check=True)

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import asam_jax

# %% [markdown]
# ## Three trained networks
#
# Real images of digits, 40% of the training labels wrong. The network has rectifiers and no biases,
# so that rescaling leaves its function exactly as it is.

# %%
digits = load_digits()
x_train, x_test, y_train, y_test = train_test_split(
    (digits.data / 16).astype(np.float32), digits.target, train_size=1280, random_state=0
)
random = np.random.default_rng(0)
wrong = random.random(len(y_train)) < 0.4
y_noisy = np.where(wrong, (y_train + random.integers(1, 10, len(y_train))) % 10, y_train)
data = (x_train, y_noisy.astype(np.int32))

EPOCHS, BATCH, WIDTH = 60, 128, 128


def predict(params, x):
    return jax.nn.relu(x @ params["hidden"]) @ params["head"]


def loss_fn(params, batch):
    x, y = batch
    return optax.softmax_cross_entropy_with_integer_labels(predict(params, x), y).mean()


def train(rho, operator):
    keys = jax.random.split(jax.random.key(0))
    params = {
        "hidden": jax.random.normal(keys[0], (64, WIDTH)) * jnp.sqrt(2 / 64),
        "head": jax.random.normal(keys[1], (WIDTH, 10)) * jnp.sqrt(1 / WIDTH),
    }
    steps = EPOCHS * (len(x_train) // BATCH)
    rate = optax.cosine_decay_schedule(0.2, steps)
    base = optax.chain(optax.add_decayed_weights(5e-4), optax.sgd(rate, 0.9))
    tx = asam_jax.asam(base, rho, operator=operator)

    @jax.jit
    def step(params, state, batch):
        grad_fn = lambda params: jax.grad(loss_fn)(params, batch)
        updates, state = tx.update(grad_fn(params), state, params, grad_fn=grad_fn)
        return optax.apply_updates(params, updates), state

    state, order = tx.init(params), np.random.default_rng(1)
    for _ in range(EPOCHS):
        for index in order.permutation(len(x_train)).reshape(-1, BATCH):
            params, state = step(params, state, (data[0][index], data[1][index]))
    return params


networks = {
    "SGD": train(0.0, asam_jax.identity()),
    "SAM": train(0.4, asam_jax.identity()),
    "ASAM": train(2.0, asam_jax.elementwise()),
}

# %% [markdown]
# ## Measuring
#
# `asam_jax.sharpness` maximizes the loss over the region $\|T_w^{-1}\epsilon\|_2 \le \rho$. With
# `steps=10` it searches for the maximum; `m` divides the data into groups, each with its own maximum
# (m-sharpness, m the batch of the training).

# %%
MEASURES = {
    "sharpness": dict(rho=0.2, operator=asam_jax.identity()),
    "adaptive sharpness": dict(rho=1.0, operator=asam_jax.elementwise(eta=0.0)),
}


measures = {  # kept, so that each is compiled once
    name: asam_jax.sharpness(loss_fn, m=BATCH, steps=10, **region)
    for name, region in MEASURES.items()
}


print(f"{'':6}{'test accuracy':>15}{'sharpness':>12}{'adaptive sharpness':>20}")
for name, params in networks.items():
    accuracy = 100 * float((predict(params, x_test).argmax(1) == y_test).mean())
    plain, adaptive = (float(measure(params, data)) for measure in measures.values())
    print(f"{name:6}{accuracy:13.1f} %{plain:12.3f}{adaptive:20.3f}")

# %% [markdown]
# ## Rescaling a layer
#
# Rectifiers pass a positive factor: with the first layer times a and the second divided by a, every
# prediction is as it was. (`not_bias` and `all_leaves` are the same rule here: no leaf is a bias.)


# %%
def rescale(params, a):
    return {"hidden": params["hidden"] * a, "head": params["head"] / a}


factors = [0.25, 0.5, 1.0, 2.0, 4.0]
params = networks["SGD"]
same = [predict(rescale(params, a), x_test) for a in factors]
assert all(np.allclose(same[0], other, rtol=1e-3, atol=1e-3) for other in same)

figure, axes = plt.subplots(1, 2, figsize=(9, 3.6))
for axis, (title, measure) in zip(axes, measures.items(), strict=True):
    for name, color in [("SGD", "#6e6e6e"), ("SAM", "#d55e00"), ("ASAM", "#0072b2")]:
        values = [float(measure(rescale(networks[name], a), data)) for a in factors]
        axis.plot(factors, values, "o-", color=color, label=f"trained by {name}")
    axis.set_xscale("log", base=2)
    axis.set_ylim(bottom=0)
    axis.set_xticks(factors, [f"{a:g}" for a in factors])
    axis.set(xlabel="a: first layer times a, second divided by a", title=title)
axes[0].set_ylabel("largest rise of the loss found")
axes[0].legend()
figure.tight_layout()
plt.show()

# %% [markdown]
# Each line is one and the same function. Sharpness in a ball moves with a: the network
# trained by SGD with its layers scaled by 2 counts as flatter than the one trained by ASAM with its
# layers scaled by 1/4. Adaptive sharpness does not move. That is what lets it be compared between
# networks, and what ASAM makes use of in training.
#
# A larger eta gives up the invariance: try `asam_jax.elementwise(eta=0.1)` above.
