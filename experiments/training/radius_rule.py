"""Rules that choose rho in training from what the loss rises by, a few times in all.

Each asks `radius_profile` on the next batch, at radii around the present one, so that no rule knows
in what units an operator measures.
"""

from typing import Any

import jax.numpy as jnp

import asam_jax
from experiments.config.run import Run

TIMES = 10
AROUND = (0.25, 0.5, 1.0, 2.0, 4.0)  # of the present radius
FORWARD = 1 / 3  # what a loss costs, in gradients


def due(run: Run, epoch: int) -> bool:
    """Whether the radius is chosen anew before that epoch: ten times in all, or at each."""
    before = (epoch - 1) * TIMES // run.epochs
    return run.radius_rule != "fixed" and (epoch * TIMES // run.epochs != before)


def cost(run: Run) -> float:
    """Gradients that a whole training spends on choosing."""
    times = sum(due(run, epoch) for epoch in range(run.epochs))
    return times * (1 + FORWARD * len(AROUND))


def chosen(run: Run, loop: Any, state: Any, epoch: int, rho: float) -> float:
    """The radius for the epochs to come."""
    radii = [rho * factor for factor in AROUND]
    profile = loop.profile(state, epoch, radii)
    if not (jnp.isfinite(profile.loss) & jnp.isfinite(profile.slope)):
        return rho  # one overflow changes nothing
    # The default, 0, where every increase overflows.
    return float(RULES[run.radius_rule](profile, jnp.asarray(radii), run.target)) or rho


def _rise(profile: asam_jax.RadiusProfile, radii, target: float):
    """The loss rises by the target, in its own units."""
    return asam_jax.radius_at(profile, radii, target, default=0.0)


def _relative(profile: asam_jax.RadiusProfile, radii, target: float):
    """The loss rises by that share of itself."""
    return asam_jax.radius_at(profile, radii, target * profile.loss, default=0.0)


def _linear(profile: asam_jax.RadiusProfile, radii, target: float):
    """The loss's linearisation rises by the target: rho = target / ||T_w g||_q."""
    return jnp.clip(target / profile.slope, radii[0], radii[-1])


def _departure(profile: asam_jax.RadiusProfile, radii, target: float):
    """The loss rises by the target times what its linearisation does."""
    excess = profile._replace(rise=profile.rise / profile.linear - 1)
    return asam_jax.radius_at(excess, radii, target - 1, default=0.0)


RULES = {"rise": _rise, "relative": _relative, "linear": _linear, "departure": _departure}
