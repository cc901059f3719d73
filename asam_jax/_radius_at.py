"""The radius at which the loss rises by so much: a rule on `radius_profile`."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from asam_jax import _checks
from asam_jax._radius_profile import RadiusProfile, radii_of


def radius_at(profile: RadiusProfile, radii: Any, *, rise: Any) -> jax.Array:
    """The smallest rho at which the loss rises by `rise`, between measured radii.

        rho:  L(w + eps(rho)) - L(w) = rise

    The rise is taken as linear between two radii, and between 0 and the first of them: the grid
    may be coarse, a factor of two between neighbours, since the rise bends little. A rise that is
    no finite number counts as beyond any target. Where no radius reaches it, the result is the last
    one; so the radii bound what a rule can choose.

    As a rule in training: called a few times in all, with the same `rise` for any network, operator
    and p, since a rise of the loss means the same everywhere and a radius does not.

    Args:
      profile: what `radius_profile` measured at these radii.
      radii: those radii, of shape [R], growing, above 0.
      rise: how far the loss is to rise, in its units, above 0; a number or a scalar array, such
        as a share of `profile.loss`.

    Returns:
      A scalar of the profile's dtype.

    Raises:
      ValueError: if radii do not grow, start at 0, or are of another number than the profile's, or
        if rise is not above 0.
      TypeError: if rise is not a scalar.

    >>> import asam_jax, jax.numpy as jnp
    >>> loss = lambda w, x: jnp.mean(x) * jnp.sum(w**2)
    >>> w, x, radii = jnp.array([3.0, 4.0]), jnp.ones((5, 1)), [0.1, 1.0, 10.0]
    >>> profile = asam_jax.radius_profile(loss, w, x, radii, operator=asam_jax.identity())
    >>> print(asam_jax.radius_at(profile, radii, rise=11.0))  # (5 + rho)^2 - 5^2
    1.0
    """
    radii = radii_of(radii)
    if np.shape(radii) != np.shape(profile.rise):
        raise ValueError(
            f"radii has shape {np.shape(radii)} and the profile's rise {np.shape(profile.rise)}; "
            "pass the radii that radius_profile was called with."
        )
    if not isinstance(radii, Tracer) and (radii[0] <= 0 or (np.diff(radii) <= 0).any()):
        raise ValueError(f"radii must grow and be above 0, got {radii.tolist()}; sort them.")
    _checks.at_least("rise", rise, 0.0)
    if not isinstance(rise, Tracer) and float(rise) == 0:
        raise ValueError("rise must be above 0, got 0; for no ascent at all pass rho=0 instead.")
    dtype = profile.rise.dtype
    zero = jnp.zeros(1, dtype)
    at = jnp.concatenate([zero, jnp.asarray(radii, dtype)])
    measured = jnp.where(jnp.isfinite(profile.rise), profile.rise, jnp.inf)
    rises = jnp.concatenate([zero, measured])
    target = jnp.asarray(rise, dtype)
    reached = rises[1:] >= target.reshape(1)
    after = jnp.where(jnp.any(reached), jnp.argmax(reached), len(at) - 2) + 1
    low, high = rises[after - 1], rises[after]
    share = jnp.where(jnp.any(reached), (target - low) / (high - low), jnp.ones((), dtype))
    return at[after - 1] + share * (at[after] - at[after - 1])
