"""ASAM's perturbation in NumPy float64 and plain loops, independent of asam_jax.

Parameters and gradients are flat dicts from a leaf's name, such as "conv/kernel", to an array.
Every formula is written out from the paper, one entry at a time, with no regard to speed,
overflow or zero gradients.
"""

import itertools
import math

import numpy as np


def entries(array):
    """Index and value of each entry, as Python floats."""
    array = np.asarray(array, np.float64)
    for index in itertools.product(*(range(n) for n in array.shape)):
        yield index, float(array[index])


def is_scaled(name, leaves):
    """Whether T = |w| + eta there ("all", or "not_bias": not for biases), or T = 1."""
    return leaves == "all" or name.rsplit("/", 1)[-1] != "bias"


def filter_of(index, layout):
    """The number of the output channel that an entry of a convolution kernel belongs to."""
    return index[-1] if layout == "flax" else index[0]


def scales(params, operator, *, eta=0.0, leaves="all", layout="flax"):
    """T_w, entry by entry: operator is "identity", "elementwise" or "filterwise"."""
    result = {}
    for name, array in params.items():
        t = np.ones(np.shape(array))
        if operator != "identity" and is_scaled(name, leaves):
            filterwise = operator == "filterwise" and np.ndim(array) >= 3
            squares = {}
            for index, w in entries(array):
                channel = filter_of(index, layout) if filterwise else index
                squares[channel] = squares.get(channel, 0.0) + w * w
            for index, _ in entries(array):
                channel = filter_of(index, layout) if filterwise else index
                t[index] = math.sqrt(squares[channel]) + eta
        result[name] = t
    return result


def perturbation(params, grads, *, rho, operator="elementwise", p=2.0, **rules):
    """eps = rho T sign(g) |T g|^(q-1) / ||T g||_q^(q-1), and at p = 1 its limit."""
    t = scales(params, operator, **rules)
    tg = {
        (name, index): t[name][index] * g
        for name, array in grads.items()
        for index, g in entries(array)
    }
    magnitudes = [abs(x) for x in tg.values()]
    if p == 1:
        largest = max(magnitudes)
        ties = sum(x == largest for x in magnitudes)

        def size(x):
            return (x == largest) / ties
    else:
        q_minus_1 = 0.0 if p == math.inf else 1.0 / (p - 1.0)
        q = q_minus_1 + 1.0
        norm = math.fsum(x**q for x in magnitudes) ** (1.0 / q)

        def size(x):
            return (x / norm) ** q_minus_1

    eps = {name: np.zeros(np.shape(array)) for name, array in params.items()}
    for (name, index), x in tg.items():
        eps[name][index] = rho * t[name][index] * math.copysign(size(abs(x)), x)
    return eps
