"""Adaptive Sharpness-Aware Minimization (ASAM, Kwon et al. 2021) for JAX and Optax."""

from asam_jax import typing as typing
from asam_jax._descent import friendly_ascent as friendly_ascent
from asam_jax._descent import gsam_descent as gsam_descent
from asam_jax._descent import looksam_descent as looksam_descent
from asam_jax._descent import stable_descent as stable_descent
from asam_jax._descent import wsam_descent as wsam_descent
from asam_jax._leaf_rules import all_leaves as all_leaves
from asam_jax._leaf_rules import flax_filter_axes as flax_filter_axes
from asam_jax._leaf_rules import not_bias as not_bias
from asam_jax._leaf_rules import torch_filter_axes as torch_filter_axes
from asam_jax._measures import average_sharpness as average_sharpness
from asam_jax._measures import maximizer as maximizer
from asam_jax._measures import sharpness as sharpness
from asam_jax._momentum import momentum_ascent as momentum_ascent
from asam_jax._momentum import remember as remember
from asam_jax._operators import elementwise as elementwise
from asam_jax._operators import filterwise as filterwise
from asam_jax._operators import identity as identity
from asam_jax._operators import masked as masked
from asam_jax._perturbation import perturbation as perturbation
from asam_jax._radius import RadiusProfile as RadiusProfile
from asam_jax._radius import radius_at as radius_at
from asam_jax._radius import radius_profile as radius_profile
from asam_jax._training import asam as asam
from asam_jax._training import sam as sam
from asam_jax._training import value_and_grad as value_and_grad
from asam_jax._transform import sharpness_aware as sharpness_aware
from asam_jax._wrappers import alternating as alternating
from asam_jax._wrappers import decoupled_wsam as decoupled_wsam

__version__ = "0.2.0"
