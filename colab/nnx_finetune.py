# %% [markdown]
# # Fine-tuning a Flax NNX model
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](COLAB/nnx_finetune.ipynb)
#
# Pretrain a small convolutional network on the digits 0 to 4, then fine-tune it on 200 images of 5 to 9,
# 40% of whose labels are wrong. The model holds BatchNorm statistics and draws dropout masks;
# `asam_jax.nnx.value_and_grad` sees to both. All of it trains in under a minute on a CPU.

# %%
import importlib.util
import pathlib
import subprocess
import sys

if importlib.util.find_spec("asam_jax") is None:
    source = ".." if pathlib.Path("../asam_jax").exists() else "git+REPOSITORY"  # or a checkout
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", source, "flax"], check=True)

import matplotlib.pyplot as plt
import numpy as np
import optax
from flax import nnx
from sklearn.datasets import load_digits

import asam_jax.nnx

# %% [markdown]
# ## Data and model

# %%
digits = load_digits()
x = (digits.images[..., None] / 16).astype(np.float32)
y = digits.target.astype(np.int32)
random = np.random.default_rng(0)
first, second = np.flatnonzero(y < 5), random.permutation(np.flatnonzero(y >= 5))
tuning, testing = second[:200], second[200:]

wrong = random.random(len(tuning)) < 0.4
y_noisy = y.copy()
y_noisy[tuning] = np.where(wrong, 5 + (y[tuning] + random.integers(1, 5, 200)) % 5, y[tuning])


class Net(nnx.Module):
    def __init__(self, rngs):
        self.conv1 = nnx.Conv(1, 16, (3, 3), use_bias=False, rngs=rngs)
        self.conv2 = nnx.Conv(16, 32, (3, 3), strides=2, use_bias=False, rngs=rngs)
        self.norm1, self.norm2 = nnx.BatchNorm(16, rngs=rngs), nnx.BatchNorm(32, rngs=rngs)
        self.drop = nnx.Dropout(0.1, rngs=rngs)
        self.head = nnx.Linear(32 * 16, 10, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.norm1(self.conv1(x)))
        x = nnx.relu(self.norm2(self.conv2(x)))
        return self.head(self.drop(x.reshape(len(x), -1)))


def loss_fn(model, x, y):
    return optax.softmax_cross_entropy_with_integer_labels(model(x), y).mean()


# %% [markdown]
# ## The step
#
# `asam_jax.nnx.value_and_grad` takes the place of `nnx.value_and_grad`: the loss is that at w, the
# gradient that at w + eps. rho is an argument of the step, so that another radius compiles nothing.
# At rho = 0 the step is AdamW's.


# %%
@nnx.jit
def step(model, optimizer, rho, x, y):
    loss, grads = asam_jax.nnx.value_and_grad(loss_fn, rho=rho)(model, x, y)
    optimizer.update(model, grads)
    return loss


@nnx.jit
def correct(model, x, y):
    return (model(x).argmax(-1) == y).mean()


def train(model, index, labels, rho, epochs, rate, batch=40, seed=0):
    """Trains `model`; its loss in the last epoch."""
    order, steps = np.random.default_rng(seed), len(index) // batch
    schedule = optax.cosine_decay_schedule(rate, epochs * steps)
    optimizer = nnx.Optimizer(model, optax.adamw(schedule, weight_decay=1e-3), wrt=nnx.Param)
    model.train()
    for _ in range(epochs):
        batches = order.permutation(index)[: steps * batch].reshape(steps, batch)
        losses = [step(model, optimizer, np.float32(rho), x[i], labels[i]) for i in batches]
    model.eval()
    return float(np.mean(losses))


EPOCHS, SEEDS, PRETRAIN = 25, 2, 5  # of fine-tuning, and of pretraining
pretrained = Net(nnx.Rngs(0))
train(pretrained, first, y, rho=0.0, epochs=PRETRAIN, rate=1e-2)
print(f"accuracy on 0 to 4: {100 * float(correct(pretrained, x[first], y[first])):.1f} %")

# %% [markdown]
# ## Fine-tuning
#
# Each run starts from the pretrained model. The training loss is measured against the labels as
# given, wrong ones included; the test labels are right.

# %%
radii = [0.0, 1.0, 2.0, 4.0, 8.0]
losses, accuracies = np.zeros((len(radii), SEEDS)), np.zeros((len(radii), SEEDS))
for place, rho in enumerate(radii):
    for seed in range(SEEDS):
        model = nnx.clone(pretrained)
        losses[place, seed] = train(model, tuning, y_noisy, rho, EPOCHS, rate=1e-2, seed=seed)
        accuracies[place, seed] = 100 * float(correct(model, x[testing], y[testing]))
    name = f"ASAM, rho = {rho}" if rho else "AdamW"
    print(
        f"{name:17} loss {losses[place].mean():.2f}, test accuracy {accuracies[place].mean():.1f} %"
    )

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.4))
for axis, values, label in [
    (left, losses, "training loss, last epoch"),
    (right, accuracies, "test accuracy, %"),
]:
    axis.plot(range(len(radii)), values.mean(1), "o-", color="#0072b2")
    axis.plot(range(len(radii)), values, ".", color="#0072b2", alpha=0.5)
    axis.set_xticks(range(len(radii)), ["AdamW", *radii[1:]])
    axis.set(xlabel="rho", ylabel=label)
figure.suptitle("Fine-tuned on 200 images, 40% of the labels wrong; two seeds", fontsize=11)
figure.tight_layout()
plt.show()

# %% [markdown]
# AdamW fits more of the wrong labels. With a larger radius the training loss stays higher and the test
# accuracy rises, until it levels off. In your own fine-tuning choose rho on a validation split;
# [Which rho](REPOSITORY/blob/main/docs/choosing.md#which-rho) says where to start.
