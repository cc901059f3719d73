"""APGD (Croce and Hein 2020, Algorithm 1) as an independent search for the largest loss in a ball.

Projected gradient ascent with momentum, whose step is halved at checkpoints where it has stalled.
Written for one vector u, in NumPy float64.
"""

import math

import numpy as np

MOMENTUM, PROGRESS = 0.75, 0.75


def project(u, rho, p):
    """The nearest point of the ball ||u||_p <= rho, for p = 2 and infinity."""
    if p == math.inf:
        return np.clip(u, -rho, rho)
    return u * min(1.0, rho / max(np.linalg.norm(u), 1e-300))


def direction(gradient, p):
    """Steepest ascent in the norm."""
    if p == math.inf:
        return np.sign(gradient)
    return gradient / max(np.linalg.norm(gradient), 1e-300)


def checkpoints(steps):
    """The steps at which the step size is looked at: ever closer, at least 6% apart."""
    fractions = [0.0, 0.22]
    while fractions[-1] < 1:
        fractions.append(fractions[-1] + max(fractions[-1] - fractions[-2] - 0.03, 0.06))
    return [math.ceil(f * steps) for f in fractions if f <= 1]


def apgd(value_and_grad, start, rho, p, steps):
    """The largest value met over `steps` steps from `start`."""
    looks = checkpoints(steps)
    eta, previous = 2 * rho, start
    value, gradient = value_and_grad(start)
    best, best_u, best_gradient = value, start, gradient
    u = project(start + eta * direction(gradient, p), rho, p)
    rises, halved, best_at_look, last_look = 0, True, value, 0
    for step in range(1, steps + 1):
        last_value = value
        value, gradient = value_and_grad(u)
        rises += value > last_value
        if value > best:
            best, best_u, best_gradient = value, u, gradient
        if step in looks:
            stalled = rises < PROGRESS * (step - last_look)
            stuck = not halved and best == best_at_look
            halved = stalled or stuck
            rises, last_look, best_at_look = 0, step, best
            if halved:
                eta, u, gradient, previous, value = eta / 2, best_u, best_gradient, best_u, best
        z = project(u + eta * direction(gradient, p), rho, p)
        mixed = u + MOMENTUM * (z - u) + (1 - MOMENTUM) * (u - previous)
        previous, u = u, project(mixed, rho, p)
    return best
