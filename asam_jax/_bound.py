"""The terms of the paper's generalization bound that can be computed, Theorem 3."""

import math
from typing import NamedTuple

from asam_jax import _checks


class BoundTerms(NamedTuple):
    """The terms of Theorem 3, explained at `generalization_bound_terms`.

    >>> import asam_jax
    >>> asam_jax.BoundTerms._fields[:3]
    ('loss', 'sharpness', 'max_loss')
    """

    loss: float
    sharpness: float
    max_loss: float
    norm_term: float
    confidence_term: float
    complexity: float
    bound_without_constant: float
    sigma: float


def _inside(name: str, value: float, low: float, high: float) -> float:
    if not (isinstance(value, (int, float)) or hasattr(value, "__float__")):
        raise TypeError(f"{name} must be a number, got {value!r}.")
    number = float(value)
    if not low < number < high:
        span = f"between {low:g} and {high:g}" if high < math.inf else f"finite and above {low:g}"
        raise ValueError(f"{name} must be {span}, got {value}.")
    return number


def generalization_bound_terms(
    *,
    loss: float,
    sharpness: float,
    norm: float,
    k: int,
    n: int,
    rho: float,
    eta: float = 0.01,
    delta: float = 0.05,
) -> BoundTerms:
    r"""The terms of the generalization bound of Theorem 3, all but its O(1).

    With probability 1 - delta over the n training examples,

        L_D(w) <= max over ||T_w^-1 eps||_2 <= rho of L_S(w + eps)
                  + sqrt((k log(1 + ||w||_2^2 / (eta^2 rho^2) (1 + sqrt(log(n) / k))^2)
                          + 4 log(n / delta) + O(1)) / (n - 1))

    for losses between 0 and 1, if Gaussian noise of standard deviation
    sigma = eta rho / (sqrt(k) (1 + sqrt(log(n) / k))) does not improve the expected loss L_D.

    **The O(1) inside the square root is left out**: the proof bounds it by no number. So
    `bound_without_constant` is no bound by itself, and for networks with more parameters than
    examples it is far above 1 in any case; the terms serve comparisons.

    Args:
      loss: L_S(w), the mean training loss.
      sharpness: the adaptive sharpness at w, as `sharpness` gives it with p = 2 on the whole
        training set (m = None). The theorem asks for the maximum, which an ascent bounds from
        below, and for an operator with T_w >= eta everywhere, such as `filterwise(eta)`.
      norm: ||w||_2, over all parameters: `optax.tree.norm(params)`.
      k: number of parameters.
      n: number of training examples, at least 2.
      rho: radius of the region.
      eta: what the operator adds to T_w; above 0.
      delta: the probability with which the bound may fail, between 0 and 1.

    Returns:
      A NamedTuple of floats:

      - loss, sharpness: as given.
      - max_loss: loss + sharpness, the first term.
      - norm_term: k log(1 + ||w||^2 / (eta rho)^2 (1 + sqrt(log(n) / k))^2).
      - confidence_term: 4 log(n / delta).
      - complexity: sqrt((norm_term + confidence_term) / (n - 1)), without the O(1).
      - bound_without_constant: max_loss + complexity.
      - sigma: the standard deviation of the noise in the theorem's assumption.

    Raises:
      ValueError: if a number is outside its range.
      TypeError: if an argument is not a number.

    >>> import asam_jax
    >>> terms = asam_jax.generalization_bound_terms(
    ...     loss=0.1, sharpness=0.02, norm=3.0, k=10, n=50_000, rho=0.5)
    >>> print(f"{terms.max_loss:.2f} {terms.complexity:.4f}")
    0.12 0.0628

    References:
      Kwon et al., ASAM, 2021, Theorems 2 and 3, Appendix A.
    """
    loss = _inside("loss", loss, -math.inf, math.inf)
    sharpness = _inside("sharpness", sharpness, -math.inf, math.inf)
    _checks.at_least("norm", norm, 0.0)
    _checks.count("k", k, 1)
    _checks.count("n", n, 2)
    rho = _inside("rho", rho, 0.0, math.inf)
    eta = _inside("eta", eta, 0.0, math.inf)
    delta = _inside("delta", delta, 0.0, 1.0)
    spread = 1.0 + math.sqrt(math.log(n) / k)
    norm_term = k * math.log1p((float(norm) / (eta * rho) * spread) ** 2)
    confidence_term = 4.0 * math.log(n / delta)
    complexity = math.sqrt((norm_term + confidence_term) / (n - 1))
    max_loss = loss + sharpness
    return BoundTerms(
        loss=loss,
        sharpness=sharpness,
        max_loss=max_loss,
        norm_term=norm_term,
        confidence_term=confidence_term,
        complexity=complexity,
        bound_without_constant=max_loss + complexity,
        sigma=eta * rho / (math.sqrt(k) * spread),
    )
