"""What Figure 2 compares for one network: its generalization gap and its sharpnesses."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import asam_jax
from experiments.training import step as stepping
from experiments.training.loop import EvaluationSet
from experiments.training.spec import ModelSpec

# Name -> (T_w, p). Sharpness is the adaptive one with T = 1.
MEASURES = {
    "sharpness_2": (asam_jax.identity(), 2.0),
    "adaptive_2": (asam_jax.elementwise(), 2.0),
    "sharpness_inf": (asam_jax.identity(), math.inf),
    "adaptive_inf": (asam_jax.elementwise(), math.inf),
}


def sharpnesses(
    spec: ModelSpec,
    params: Any,
    rest: Any,
    images: np.ndarray,
    labels: np.ndarray,
    rhos: tuple[float, ...],
    *,
    m: int,
    train: bool,
) -> dict[str, np.ndarray]:
    """Each measure at each rho, over groups of m images; the remainder sits out.

    The one-step sharpness of `asam_jax.sharpness`; here all measures and radii share a group's
    gradient, which is most of the cost.
    """
    groups = len(labels) // m
    totals = np.zeros((len(rhos), len(MEASURES)))
    radii = [jnp.float32(rho) for rho in rhos]
    for start in range(0, groups * m, m):
        group = (images[start : start + m], labels[start : start + m])
        base, units = _directions(spec, params, rest, *group, train)
        rises = [_rises(spec, params, rest, *group, train, base, units, rho) for rho in radii]
        totals += jax.device_get(rises)
    return dict(zip(MEASURES, totals.T / groups, strict=True))


def _loss(spec, params, rest, images, labels, train) -> jax.Array:
    return stepping.evaluate(spec, params, rest, images, labels, train=train)[0] / len(labels)


@functools.partial(jax.jit, static_argnums=(0, 5))
def _directions(spec, params, rest, images, labels, train) -> tuple[jax.Array, dict[str, Any]]:
    """A group's loss and each measure's eps for rho = 1, to which eps is proportional."""
    base, grads = jax.value_and_grad(lambda w: _loss(spec, w, rest, images, labels, train))(params)
    units = {
        name: asam_jax.perturbation(params, grads, rho=1.0, operator=operator, p=p)
        for name, (operator, p) in MEASURES.items()
    }
    return base, units


@functools.partial(jax.jit, static_argnums=(0, 5))
def _rises(spec, params, rest, images, labels, train, base, units, rho) -> jax.Array:
    """L(w + eps) - L(w) of a group for each measure at one rho.

    Unrolled, since a convolution in a loop is slow on a CPU, and for one rho, since twelve make a
    program that takes minutes to compile.
    """
    points = [jax.tree.map(lambda w, e: w + rho * e, params, units[name]) for name in MEASURES]
    losses = [_loss(spec, point, rest, images, labels, train) for point in points]
    return jnp.stack(losses) - base


def losses(
    spec: ModelSpec, params: Any, rest: Any, train: EvaluationSet, test: EvaluationSet
) -> dict[str, float]:
    """Mean loss and accuracy over training and test images, and the gap between the losses."""
    train_loss, train_accuracy = train.mean(spec, params, rest)
    test_loss, test_accuracy = test.mean(spec, params, rest)
    return {
        "train_loss": train_loss,
        "test_loss": test_loss,
        "gap": test_loss - train_loss,
        "train_accuracy": train_accuracy,
        "test_accuracy": test_accuracy,
    }
