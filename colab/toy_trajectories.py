# %% [markdown]
# # SAM and ASAM on a loss of two weights
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](COLAB/toy_trajectories.ipynb)
#
# Section 6.1 and Figure 3 of the [paper](https://arxiv.org/abs/2102.11600). A network with one hidden
# rectifier, one weight into it and one out of it, is to give 0.04 for the input 1:
#
# $$L(w) = |w_1\, \mathrm{ReLU}(w_2) - 0.04|$$
#
# Every point of the hyperbola $w_1 w_2 = 0.04$ is a minimum, and all of them are the same function:
# multiply one weight by a, divide the other by a.

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

import asam_jax

# %% [markdown]
# ## Trajectories
#
# Gradient descent with a small learning rate, SAM's and ASAM's, from many starts and for many radii
# at once.

# %%
TARGET, RATE, STEPS = 0.04, 0.003, 2000


def loss(w):
    return jnp.abs(w[0] * jax.nn.relu(w[1]) - TARGET)


def trajectory(operator, rho, start):
    """The points on the way, an array (step, 2)."""
    tx = asam_jax.asam(optax.sgd(RATE), rho, operator=operator)
    grad_fn = jax.grad(loss)

    def step(carry, _):
        w, state = carry
        updates, state = tx.update(grad_fn(w), state, w, grad_fn=grad_fn)
        w = optax.apply_updates(w, updates)
        return (w, state), w

    return jax.lax.scan(step, (start, tx.init(start)), length=STEPS)[1]


def trajectories(operator, rhos, starts):
    """An array (radius, start, step, 2), the starts included."""
    run = lambda rho, start: trajectory(operator, rho, start)
    over_both = jax.jit(jax.vmap(jax.vmap(run, (None, 0)), (0, None)))
    points = over_both(jnp.array(rhos), jnp.array(starts))
    first = np.broadcast_to(np.array(starts)[:, None], (len(rhos), len(starts), 1, 2))
    return np.concatenate([first, points], axis=2)


METHODS = {"SAM": asam_jax.identity(), "ASAM": asam_jax.elementwise()}
COLORS = {"SGD": "#6e6e6e", "SAM": "#d55e00", "ASAM": "#0072b2"}


def landscape(axis):
    w1, w2 = np.linspace(0.02, 0.45, 200), np.linspace(-0.05, 0.35, 200)
    surface = np.abs(w1[None, :] * np.maximum(w2[:, None], 0) - TARGET)
    axis.contour(w1, w2, surface, np.arange(0.01, 0.1, 0.01), colors="lightgray", linewidths=0.8)
    axis.plot(w1, TARGET / w1, color="black", linewidth=2, alpha=0.6)
    axis.set(xlim=(0.02, 0.45), ylim=(-0.05, 0.35), xlabel="$w_1$", ylabel="$w_2$")


# %% [markdown]
# ## The paper's two starts
#
# SAM with rho = 0.05, ASAM with 0.5, and plain gradient descent (rho = 0); the hyperbola is drawn
# in black.

# %%
starts = [(0.2, 0.05), (0.3, 0.033)]
paths = {
    "SGD": trajectories(METHODS["SAM"], [0.0], starts)[0],
    "SAM": trajectories(METHODS["SAM"], [0.05], starts)[0],
    "ASAM": trajectories(METHODS["ASAM"], [0.5], starts)[0],
}
figure, axes = plt.subplots(1, 2, figsize=(9, 4), sharey=True)
for index, (axis, start) in enumerate(zip(axes, starts, strict=True)):
    landscape(axis)
    for name, path in paths.items():
        axis.plot(*path[index].T, color=COLORS[name], label=name)
        axis.plot(*path[index, -1], "o", color=COLORS[name], fillstyle="none", markersize=9)
        end, height = path[index, -1], float(loss(path[index, -1]))
        print(f"{name:4} from {start} ends at ({end[0]:.3f}, {end[1]:.3f}), loss {height:.4f}")
    axis.plot(*start, "k.", markersize=9)
    axis.set_title(f"start {start}", fontsize=11)
axes[0].legend(loc="upper right")
figure.tight_layout()
plt.show()

# %% [markdown]
# Along the hyperbola the plain gradient sees no difference. SAM does: it drifts to the point with
# equal weights, where the loss within a ball is lowest. And from the second start it does not get
# away: w + eps lies beyond $w_2 = 0$, where the rectifier passes no gradient. ASAM measures
# its step in units of each weight: it ends close to where gradient descent does, and stays in the
# half-plane.
#
# ## A grid of radii and starts
#
# One row for each method, one column for each radius. Dots are starts, circles are ends; a circle
# around a dot is a run that stayed where it began.

# %%
grid = [(0.06, 0.3), (0.1, 0.2), (0.15, 0.1), (0.2, 0.05), (0.25, 0.25), (0.3, 0.033), (0.4, 0.02)]
radii = {"SAM": [0.01, 0.02, 0.05, 0.1], "ASAM": [0.1, 0.2, 0.5, 1.0]}

figure, axes = plt.subplots(2, 4, figsize=(12, 6), sharex=True, sharey=True, dpi=64)
for row, (name, operator) in zip(axes, METHODS.items(), strict=True):
    paths = trajectories(operator, radii[name], grid)
    for axis, rho, of_rho in zip(row, radii[name], paths, strict=True):
        landscape(axis)
        for path in of_rho:
            axis.plot(*path[::10].T, color=COLORS[name], linewidth=1)
            axis.plot(*path[0], "k.")
            axis.plot(*path[-1], "o", color=COLORS[name], fillstyle="none")
        heights = np.abs(of_rho[:, -1, 0] * np.maximum(of_rho[:, -1, 1], 0) - TARGET)
        reached = int((heights < 0.05 * TARGET).sum())
        axis.set_title(f"{name}, rho = {rho}: {reached} of {len(grid)} arrive", fontsize=11)
        axis.label_outer()
figure.tight_layout()
plt.show()

# %% [markdown]
# The larger SAM's radius, the farther it drifts along the valley, and the more starts near
# $w_2 = 0$ it cannot leave. ASAM's radius is relative: only near 1, where a step may take a whole
# weight away, does it reach $w_2 = 0$.
#
# ## Rescaled, the same rise
#
# With eta = 0 the perturbation follows the rescaling exactly: eps at (a w1, w2 / a) is
# (a eps1, eps2 / a), so the loss at w + eps is the same. SAM's is not.

# %%
print("rise of the loss on the way to w + eps, at three scales of the same function")
for name, operator, rho in [
    ("SAM", asam_jax.identity(), 0.01),
    ("ASAM", asam_jax.elementwise(eta=0.0), 0.2),
]:
    rises = []
    for a in (0.5, 1.0, 2.0):
        w = jnp.array([0.25 * a, 0.2 / a])
        eps = asam_jax.perturbation(w, jax.grad(loss)(w), rho=rho, operator=operator)
        rises.append(float(loss(w + eps) - loss(w)))
    print(f"{name:4}", "  ".join(f"{rise:.5f}" for rise in rises))
