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
# 1797 images of 8 by 8 pixels. A wrong label is any of the nine other digits; the test labels are
# right.

# %%
digits = load_digits()
x_train, x_test, y_train, y_test = train_test_split(
    (digits.data / 16).astype(np.float32), digits.target, test_size=0.2, random_state=0
)
random = np.random.default_rng(0)
wrong = random.random(len(y_train)) < 0.4
y_noisy = np.where(wrong, (y_train + random.integers(1, 10, len(y_train))) % 10, y_train)

figure, axes = plt.subplots(2, 8, figsize=(8, 3.0))
for axis, image, given, true in zip(axes.flat, x_train, y_noisy, y_train, strict=False):
    axis.imshow(image.reshape(8, 8), cmap="gray_r")
    axis.set_title(f"{given}", color="tab:red" if given != true else "black", fontsize=11)
    axis.axis("off")
figure.suptitle("Training images and their labels, wrong ones in red", fontsize=11)
figure.tight_layout()
plt.show()

# %% [markdown]
# ## One step
#
# `asam_jax.sharpness_aware` is the first link of an optax pipeline: it takes the gradient at w and
# hands on the gradient at w + eps. Weight decay, momentum and learning rate come after it. `update`
# gets one more argument than usual, `grad_fn`: how to take the gradient elsewhere, on the same
# mini-batch.

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


def pipeline(rho, operator):
    return optax.chain(
        asam_jax.sharpness_aware(rho, operator=operator),
        optax.add_decayed_weights(5e-4),
        optax.sgd(optax.cosine_decay_schedule(0.2, EPOCHS * STEPS), momentum=0.9),
    )


def step(params, state, rho, x, y, *, operator):
    grad_fn = lambda params: jax.grad(loss_fn)(params, x, y)
    tx = pipeline(rho, operator)
    updates, state = tx.update(grad_fn(params), state, params, grad_fn=grad_fn)
    return optax.apply_updates(params, updates), state


# %% [markdown]
# ## Training
#
# rho is an array, not part of the program: `jax.vmap` trains networks with several radii and from
# several seeds at once. The operator T_w makes the method: `identity()` is SAM (and plain SGD at
# rho = 0), `elementwise()` is ASAM.


# %%
def train(operator, rhos, seeds=(0, 1)):
    """Test accuracy in percent, an array (radius, seed, epoch)."""
    runs = [(rho, seed) for rho in rhos for seed in seeds]
    radii = jnp.array([rho for rho, _ in runs])
    params = jax.vmap(lambda seed: init(jax.random.key(seed)))(jnp.array([s for _, s in runs]))
    state = jax.vmap(pipeline(0.0, operator).init)(params)

    one = lambda p, s, rho, x, y: step(p, s, rho, x, y, operator=operator)
    all_steps = jax.jit(jax.vmap(one, in_axes=(0, 0, 0, None, None)))
    right = jax.jit(jax.vmap(lambda p: (predict(p, x_test).argmax(1) == y_test).mean()))
    order, curve = np.random.default_rng(1), []
    for _ in range(EPOCHS):
        batches = order.permutation(len(x_train))[: STEPS * BATCH].reshape(STEPS, BATCH)
        for batch in batches:
            params, state = all_steps(params, state, radii, x_train[batch], y_noisy[batch])
        curve.append(100 * right(params))
    return np.array(curve).T.reshape(len(rhos), len(seeds), EPOCHS)


sam_rhos = [0.0, 0.05, 0.1, 0.2, 0.4]
asam_rhos = [0.25, 0.5, 1.0, 2.0]
sam = train(asam_jax.identity(), sam_rhos)
asam = train(asam_jax.elementwise(), asam_rhos)

# %% [markdown]
# With the radii that the papers give for CIFAR-10, 0.05 for SAM and 0.5 for ASAM:

# %%
runs = {
    "SGD": sam[sam_rhos.index(0.0)],
    "SAM, rho = 0.05": sam[sam_rhos.index(0.05)],
    "ASAM, rho = 0.5": asam[asam_rhos.index(0.5)],
}
colors = ["#6e6e6e", "#d55e00", "#0072b2"]
figure, axis = plt.subplots(figsize=(6, 3.6))
for (name, curves), color in zip(runs.items(), colors, strict=True):
    axis.plot(np.arange(1, EPOCHS + 1), curves.T, color=color, label=[name, None])
    print(f"{name:16} test accuracy after the last epoch: {curves[:, -1].mean():.1f} %")
axis.set(xlabel="epoch", ylabel="test accuracy, %", ylim=(70, 100))
axis.set_title("Digits, 40% wrong training labels; two seeds each", fontsize=11)
axis.legend()
plt.show()

# %% [markdown]
# SGD comes to fit the wrong labels and loses what it had; a sharpness-aware step holds that off.

# %% [markdown]
# ## Is it the method or the radius?
#
# The two radii have different units, an absolute change of the weights for SAM and a relative one for
# ASAM, and so much noise asks for larger ones than CIFAR-10 does. So look at a range of each.

# %%
figure, axes = plt.subplots(1, 2, figsize=(8, 3.4), sharey=True)
for axis, name, rhos, curves, color in [
    (axes[0], "SAM", sam_rhos, sam, "#d55e00"),
    (axes[1], "ASAM", asam_rhos, asam, "#0072b2"),
]:
    final = curves[:, :, -1]
    places = np.arange(len(rhos))
    axis.plot(places, final.mean(1), "o-", color=color)
    axis.plot(places, final, ".", color=color, alpha=0.5)
    axis.axhline(sam[0, :, -1].mean(), color="#6e6e6e", linestyle="--", label="SGD (mean)")
    axis.set_xticks(places, rhos)
    axis.set(xlabel="rho", title=name)
axes[0].set_ylabel("test accuracy after the last epoch, %")
axes[0].legend(loc="upper left")
figure.tight_layout()
plt.show()

# %% [markdown]
# ## Where to go on
#
# - The same with your module library: the
#   [examples](REPOSITORY/tree/main/docs/examples).
# - [Choosing rho, eta and the leaves](REPOSITORY/blob/main/docs/choosing.md).
# - [What ASAM does on a loss of two weights](COLAB/toy_trajectories.ipynb).
