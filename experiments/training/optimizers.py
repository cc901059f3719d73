"""The base optimizers that take the gradient of any method: SGD, AdamW and Muon."""

from typing import Any

import jax
import optax

# Fields of `Run` where nothing is said: the paper's values for SGD, with the data set's Nesterov,
# and those that transformers are trained with for the others.
DEFAULTS: dict[str, dict[str, Any]] = {
    "sgd": dict(lr=0.1, momentum=0.9, weight_decay=5e-4),
    "adamw": dict(lr=1e-3, momentum=0.9, weight_decay=0.05, nesterov=False),
    "muon": dict(lr=1e-3, momentum=0.95, weight_decay=0.05, nesterov=True),
}
# Updates of a matrix under Muon have this root mean square, times the learning rate: about that of
# Adam's, so that one learning rate and one decay serve all parameters (Liu et al. 2025).
_MUON_RMS = 0.2


def base(
    optimizer: str, lr, momentum, weight_decay, *, nesterov: bool
) -> optax.GradientTransformation:
    """The optimizer of that name; its numbers may be traced.

    Args:
      optimizer: one of `DEFAULTS`.
      lr: the learning rate of this step.
      momentum: of SGD's sum, or of the mean that AdamW and Muon keep.
      weight_decay: SGD adds it, times w, to the gradient; AdamW and Muon to what they make of it.
      nesterov: whether the momentum looks ahead.
    """
    if optimizer == "adamw":
        return optax.adamw(lr, b1=momentum, weight_decay=weight_decay, nesterov=nesterov)
    if optimizer == "muon":
        return optax.contrib.muon(
            lr,
            beta=momentum,
            weight_decay=weight_decay,
            nesterov=nesterov,
            adam_b1=momentum,
            adam_weight_decay=weight_decay,
            muon_weight_dimension_numbers=_matrices,
            consistent_rms=_MUON_RMS,
        )
    return optax.chain(
        optax.add_decayed_weights(weight_decay),
        optax.sgd(lr, momentum=momentum, nesterov=nesterov),
    )


def _matrices(params: Any) -> Any:
    """How Muon reads each leaf as a matrix: kernels alone, a convolution's by its filters.

    By shape, as optax has it, a position embedding would be a matrix and a convolution none.
    """

    def dimensions(path, leaf):
        if "kernel" not in (getattr(key, "key", None) for key in path):
            return None
        last = leaf.ndim - 1
        return optax.contrib.MuonDimensionNumbers(tuple(range(last)), last)

    return jax.tree_util.tree_map_with_path(dimensions, params)
