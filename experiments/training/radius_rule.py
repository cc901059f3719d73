"""The rule that chooses rho in training from what the loss rises by, ten times in all.

It asks `radius_profile` on the next batch, at radii around the present one, so that it need not
know in what units an operator measures.
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
    """The radius for the epochs to come: there the loss rises by the run's target."""
    radii = [rho * factor for factor in AROUND]
    profile = loop.profile(state, epoch, radii)
    if not (jnp.isfinite(profile.loss) & jnp.isfinite(profile.slope)):
        return rho  # one overflow changes nothing
    # The default, 0, where every increase overflows.
    return float(asam_jax.radius_at(profile, jnp.asarray(radii), run.target, default=0.0)) or rho
