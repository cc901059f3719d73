"""The authors' training step in NumPy float64, the gradient by hand, with PyTorch's SGD.

Names and layouts are PyTorch's: tensors whose name holds "weight" (BatchNorm's scale, too) are
scaled by |w| + eta, all others by one.
"""

import numpy as np

MOMENTUM, WEIGHT_DECAY, ETA = 0.9, 5e-4, 0.01
NORM_EPS = 1e-5


def init(seed=0):
    """dense (out, in), without bias; BatchNorm; tanh; dense."""
    rng = np.random.default_rng(seed)
    return {
        "dense.weight": rng.normal(size=(7, 5)) / np.sqrt(5),
        "norm.weight": 1 + 0.3 * rng.normal(size=7),
        "norm.bias": 0.3 * rng.normal(size=7),
        "head.weight": rng.normal(size=(3, 7)) / np.sqrt(7),
        "head.bias": 0.1 * rng.normal(size=3),
    }


def batches(steps, seed=1):
    """Another mini-batch of 16 examples in three classes for every step."""
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        yield rng.normal(size=(16, 5)), rng.integers(3, size=16)


def gradient(w, x, labels):
    """Of the mean cross-entropy, backwards through each layer by hand."""
    z = x @ w["dense.weight"].T
    deviation = np.sqrt(z.var(axis=0) + NORM_EPS)
    normal = (z - z.mean(axis=0)) / deviation
    h = np.tanh(w["norm.weight"] * normal + w["norm.bias"])
    logits = h @ w["head.weight"].T + w["head.bias"]
    exponentials = np.exp(logits)
    probabilities = exponentials / exponentials.sum(axis=1, keepdims=True)

    d_logits = (probabilities - np.eye(3)[labels]) / len(labels)
    d_scaled = (d_logits @ w["head.weight"]) * (1 - h**2)
    d_normal = d_scaled * w["norm.weight"]
    d_z = d_normal - d_normal.mean(axis=0) - normal * (d_normal * normal).mean(axis=0)
    return {
        "dense.weight": (d_z / deviation).T @ x,
        "norm.weight": (d_scaled * normal).sum(axis=0),
        "norm.bias": d_scaled.sum(axis=0),
        "head.weight": d_logits.T @ h,
        "head.bias": d_logits.sum(axis=0),
    }


def perturbed(w, g, rho):
    """w + eps, with the norm over the tensors' norms and a guard of 1e-16 under the fraction."""
    t = {name: np.abs(v) + ETA if "weight" in name else np.ones_like(v) for name, v in w.items()}
    norms = [np.linalg.norm((t[name] * g[name]).ravel()) for name in w]
    length = np.linalg.norm(norms) + 1e-16
    return {name: w[name] + rho / length * t[name] ** 2 * g[name] for name in w}


def trajectory(w, steps, *, rho, lr):
    """The parameters after each step; PyTorch's SGD adds the decay first and starts with g."""
    buffer, path = None, []
    for x, labels in batches(steps):
        g = gradient(perturbed(w, gradient(w, x, labels), rho), x, labels)
        decayed = {name: g[name] + WEIGHT_DECAY * w[name] for name in w}
        if buffer is None:
            buffer = decayed
        else:
            buffer = {name: MOMENTUM * buffer[name] + decayed[name] for name in w}
        w = {name: w[name] - lr * buffer[name] for name in w}
        path.append(w)
    return path
