"""Adaptive Sharpness-Aware Minimization (ASAM, Kwon et al. 2021) for JAX and Optax.

- `perturbation`: parameters, gradient, T_w, rho, p -> eps
- `value_and_grad`: value at w and gradient at w + eps, in place of `jax.value_and_grad`
- `sharpness_aware`: the optax link: gradient at w in, gradient at w + eps out
- `asam`, `sam`: that link in front of a base optimizer
- `friendly_ascent`, `gsam_descent`, `wsam_descent`, `stable_descent`, `look_descent`: refinements
  of that link
- `decoupled_wsam`: sharpness as a regularizer that passes by the base optimizer
- `momentum_ascent`, `remember`: a step of one gradient, along what the optimizer remembers
- `alternating`: the same for loops that own the gradient call
- `sharpness`, `maximizer`: adaptive sharpness of a loss, and the eps that attains it
- `radius_profile`: by how much the loss and its linearisation rise at several radii
- `radius_at`: the radius at which the loss rises by so much, a rule for training
- `average_sharpness`: the rise of a loss under Gaussian noise in units of T_w
- `generalization_bound_terms`: what Theorem 3 makes of sharpness, but for its O(1)
- `identity`, `elementwise`, `filterwise`, `masked`: normalization operators T_w
- `not_bias`, `all_leaves`: which leaves are scaled
- `flax_filter_axes`, `torch_filter_axes`: what a filter is
- `Operator`, `LeafPredicate`, `FilterAxes`, `Radius`, `AxisName`: types in signatures
"""

from asam_jax._aliases import asam, sam
from asam_jax._alternating import AlternatingState, alternating
from asam_jax._bound import BoundTerms, generalization_bound_terms
from asam_jax._collectives import AxisName
from asam_jax._decoupled import DecoupledState, decoupled_wsam
from asam_jax._descent import Descent, gsam_descent, look_descent, stable_descent, wsam_descent
from asam_jax._direction import RememberState, friendly_ascent, momentum_ascent, remember
from asam_jax._filters import FilterAxes, LayerAxes, flax_filter_axes, torch_filter_axes
from asam_jax._gradient import value_and_grad
from asam_jax._masked import masked
from asam_jax._measures import average_sharpness, maximizer, sharpness
from asam_jax._operators import Operator, elementwise, filterwise, identity
from asam_jax._perturbation import perturbation
from asam_jax._radius import RadiusProfile, radius_at, radius_profile
from asam_jax._rules import LeafPredicate, all_leaves, not_bias
from asam_jax._transform import Radius, SharpnessAwareState, sharpness_aware

__version__ = "0.1.0"

__all__ = [
    "AlternatingState",
    "AxisName",
    "BoundTerms",
    "DecoupledState",
    "Descent",
    "FilterAxes",
    "LayerAxes",
    "LeafPredicate",
    "Operator",
    "Radius",
    "RadiusProfile",
    "RememberState",
    "SharpnessAwareState",
    "all_leaves",
    "alternating",
    "asam",
    "average_sharpness",
    "decoupled_wsam",
    "elementwise",
    "filterwise",
    "flax_filter_axes",
    "friendly_ascent",
    "generalization_bound_terms",
    "gsam_descent",
    "identity",
    "look_descent",
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
    "value_and_grad",
    "wsam_descent",
]
