# %% [markdown]
# # ASAM in five minutes
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](COLAB/quickstart.ipynb)
#
# Train a small network on real images of digits, 40% of whose training labels are wrong, with SGD,
# with SAM and with ASAM. A CPU runtime is enough.

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
# ## The data
#
# 1797 images of 8 by 8 pixels. A wrong label is any of the nine other digits. The test labels are
# right; the validation labels are as wrong as those for training, as they would be in practice.

# %%
digits = load_digits()
random = np.random.default_rng(0)
wrong = random.random(len(digits.target)) < 0.4
noisy = np.where(wrong, (digits.target + random.integers(1, 10, len(wrong))) % 10, digits.target)
x, x_test, y, _, true, y_test = train_test_split(
    (digits.data / 16).astype(np.float32), noisy, digits.target, test_size=0.2, random_state=0
)
x_train, x_val, y_train, y_val, true, _ = train_test_split(
    x, y, true, test_size=0.2, random_state=0
)

figure, axes = plt.subplots(2, 8, figsize=(8, 3.0))
for axis, image, given, right in zip(axes.flat, x_train, y_train, true, strict=False):
    axis.imshow(image.reshape(8, 8), cmap="gray_r")
    axis.set_title(f"{given}", color="tab:red" if given != right else "black", fontsize=11)
    axis.axis("off")
figure.suptitle("Training images and their labels, wrong ones in red", fontsize=11)
figure.tight_layout()
plt.show()

# %% [markdown]
# ## One step
#
# `asam_jax.asam(base, rho)` is an optax optimizer: eps is made from the gradient at w, and the base
# optimizer steps from w with the gradient at w + eps. `update` gets one argument more than usual,
# `grad_fn`: how to take the gradient elsewhere, on the same mini-batch. The operator T_w makes the
# method: `identity()` is SAM (and plain SGD at rho = 0), `elementwise()` is ASAM.

# %%
EPOCHS, BATCH, WIDTH = 50, 128, 256
STEPS = len(x_train) // BATCH


def init(key):
    first, second = jax.random.split(key)
    return {
        "hidden": jax.random.normal(first, (64, WIDTH)) * jnp.sqrt(2 / 64),
        "hidden_bias": jnp.zeros(WIDTH),
        "head": jax.random.normal(second, (WIDTH, 10)) * jnp.sqrt(1 / WIDTH),
        "head_bias": jnp.zeros(10),
    }


def predict(params, x):
    hidden = jax.nn.relu(x @ params["hidden"] + params["hidden_bias"])
    return hidden @ params["head"] + params["head_bias"]


def loss_fn(params, x, y):
    return optax.softmax_cross_entropy_with_integer_labels(predict(params, x), y).mean()


def optimizer(rho, operator):
    rate = optax.cosine_decay_schedule(0.2, EPOCHS * STEPS)
    base = optax.chain(optax.add_decayed_weights(5e-4), optax.sgd(rate, momentum=0.9))
    return asam_jax.asam(base, rho, operator=operator)


def step(params, state, rho, x, y, *, operator):
    grad_fn = lambda params: jax.grad(loss_fn)(params, x, y)
    tx = optimizer(rho, operator)
    updates, state = tx.update(grad_fn(params), state, params, grad_fn=grad_fn)
    return optax.apply_updates(params, updates), state


# %% [markdown]
# ## Training
#
# rho is an array and not part of the program, so `jax.vmap` trains networks with several radii and
# from several seeds at once.


# %%
def train(operator, rhos, seeds=(0, 1)):
    """Validation and test accuracy in percent, each an array (radius, seed, epoch)."""
    runs = [(rho, seed) for rho in rhos for seed in seeds]
    radii = jnp.array([rho for rho, _ in runs])
    params = jax.vmap(lambda seed: init(jax.random.key(seed)))(jnp.array([s for _, s in runs]))
    state = jax.vmap(optimizer(0.0, operator).init)(params)

    one = lambda p, s, rho, x, y: step(p, s, rho, x, y, operator=operator)
    all_steps = jax.jit(jax.vmap(one, in_axes=(0, 0, 0, None, None)))
    correct = lambda p, x, y: (predict(p, x).argmax(1) == y).mean()
    measure = jax.jit(
        jax.vmap(lambda p: jnp.stack([correct(p, x_val, y_val), correct(p, x_test, y_test)]))
    )
    order, curve = np.random.default_rng(1), []
    for _ in range(EPOCHS):
        batches = order.permutation(len(x_train))[: STEPS * BATCH].reshape(STEPS, BATCH)
        for batch in batches:
            params, state = all_steps(params, state, radii, x_train[batch], y_train[batch])
        curve.append(100 * measure(params))
    return np.array(curve).transpose(2, 1, 0).reshape(2, len(rhos), len(seeds), EPOCHS)


METHODS = {
    "SAM": (asam_jax.identity(), [0.0, 0.05, 0.1, 0.2, 0.4, 0.8], "#d55e00"),
    "ASAM": (asam_jax.elementwise(), [0.25, 0.5, 1.0, 2.0, 4.0], "#0072b2"),
}
accuracy = {name: train(operator, rhos) for name, (operator, rhos, _) in METHODS.items()}
sgd = accuracy["SAM"][1, 0]  # rho = 0

# %% [markdown]
# ## Which radius?
#
# The two radii have different units: an absolute change of the weights for SAM, a relative one for
# ASAM. So look at a range of each. Filled: the radius with the best accuracy on the validation
# labels, wrong ones included.

# %%
figure, axes = plt.subplots(1, 2, figsize=(8, 3.4), sharey=True)
chosen = {}
for axis, (name, (_, rhos, color)) in zip(axes, METHODS.items(), strict=True):
    validation, test = accuracy[name][..., -1].mean(axis=2)
    best = chosen[name] = int(validation.argmax())
    axis.plot(range(len(rhos)), test, "o-", color=color, fillstyle="none")
    axis.plot(best, test[best], "o", color=color, markersize=9)
    axis.axhline(sgd[:, -1].mean(), color="#6e6e6e", linestyle="--", label="SGD")
    axis.set_xticks(range(len(rhos)), rhos)
    axis.set(xlabel="rho", title=name)
    print(f"{name:4} rho = {rhos[best]}: test accuracy after the last epoch {test[best]:.1f} %")
print(f"SGD: {sgd[:, -1].mean():.1f} %")
axes[0].set_ylabel("test accuracy, last epoch, %")
axes[0].legend(loc="upper left")
figure.tight_layout()
plt.show()

# %% [markdown]
# ## Over the epochs
#
# SGD comes to fit the wrong labels and loses what it had. SAM and ASAM, each at the chosen radius,
# keep it.

# %%
figure, axis = plt.subplots(figsize=(6, 3.6))
epochs = np.arange(1, EPOCHS + 1)
axis.plot(epochs, sgd.T, color="#6e6e6e", label=["SGD", None])
for name, (_, rhos, color) in METHODS.items():
    curves = accuracy[name][1, chosen[name]]
    axis.plot(epochs, curves.T, color=color, label=[f"{name}, rho = {rhos[chosen[name]]}", None])
axis.set(xlabel="epoch", ylabel="test accuracy, %", ylim=(60, 100))
axis.set_title("Digits, 40% wrong training labels; two seeds each", fontsize=11)
axis.legend(loc="lower right")
plt.show()

# %% [markdown]
# ## Where to go on
#
# - The same with your module library: the
#   [examples](REPOSITORY/blob/main/docs/examples.md).
# - [Which rho, eta and leaves](REPOSITORY/blob/main/docs/choosing.md).
# - [Fine-tuning a Flax NNX model](COLAB/nnx_finetune.ipynb).
