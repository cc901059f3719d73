"""The terms of the paper's generalization bound that can be computed, Theorem 3."""

import math
from typing import NamedTuple


class BoundTerms(NamedTuple):
    """The terms of Theorem 3, explained at `generalization_bound_terms`."""

    max_loss: float
    norm_term: float
    confidence_term: float
    complexity: float
    bound_without_constant: float
    sigma: float


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

    loss is L_S(w), the mean training loss; sharpness the adaptive one at w for p = 2 on the whole
    training set, which an ascent bounds from below, with an operator whose T_w >= eta everywhere,
    such as `filterwise(eta)`; norm is ||w||_2; k counts parameters, n training examples; delta is
    the probability with which the bound may fail. A number outside its range is a ValueError.

    References:
      Kwon et al., ASAM, 2021, Theorems 2 and 3, Appendix A.
    """
    for name, value, good in (
        ("loss", loss, math.isfinite(loss)),
        ("sharpness", sharpness, math.isfinite(sharpness)),
        ("norm", norm, 0 <= norm < math.inf),
        ("k", k, k >= 1),
        ("n", n, n >= 2),
        ("rho", rho, 0 < rho < math.inf),
        ("eta", eta, 0 < eta < math.inf),
        ("delta", delta, 0 < delta < 1),
    ):
        if not good:
            raise ValueError(f"{name}={value!r} is out of the range that the theorem has for it.")
    spread = 1.0 + math.sqrt(math.log(n) / k)
    norm_term = k * math.log1p((float(norm) / (eta * rho) * spread) ** 2)
    confidence_term = 4.0 * math.log(n / delta)
    complexity = math.sqrt((norm_term + confidence_term) / (n - 1))
    return BoundTerms(
        max_loss=loss + sharpness,
        norm_term=norm_term,
        confidence_term=confidence_term,
        complexity=complexity,
        bound_without_constant=loss + sharpness + complexity,
        sigma=eta * rho / (math.sqrt(k) * spread),
    )
