"""Adaptive Sharpness-Aware Minimization (ASAM, Kwon et al. 2021) for JAX and Optax."""

from asam_jax import typing
from asam_jax._descent import (
    friendly_ascent,
    gsam_descent,
    looksam_descent,
    stable_descent,
    wsam_descent,
)
from asam_jax._leaf_rules import all_leaves, flax_filter_axes, not_bias, torch_filter_axes
from asam_jax._measures import average_sharpness, maximizer, sharpness
from asam_jax._momentum import momentum_ascent, remember
from asam_jax._operators import elementwise, filterwise, identity, masked
from asam_jax._perturbation import perturbation
from asam_jax._radius import RadiusProfile, radius_at, radius_profile
from asam_jax._training import asam, sam, value_and_grad
from asam_jax._transform import sharpness_aware
from asam_jax._wrappers import alternating, decoupled_wsam

__version__ = "0.2.0"

__all__ = [
    "RadiusProfile",
    "all_leaves",
    "alternating",
    "asam",
    "average_sharpness",
    "decoupled_wsam",
    "elementwise",
    "filterwise",
    "flax_filter_axes",
    "friendly_ascent",
    "gsam_descent",
    "identity",
    "looksam_descent",
    "masked",
    "maximizer",
    "momentum_ascent",
    "not_bias",
    "perturbation",
    "radius_at",
    "radius_profile",
    "remember",
    "sam",
    "sharpness",
    "sharpness_aware",
    "stable_descent",
    "torch_filter_axes",
    "typing",
    "value_and_grad",
    "wsam_descent",
]
