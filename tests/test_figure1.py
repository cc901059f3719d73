"""Figure 1: what rescaling does to the maximum of the loss in the three regions."""

import numpy as np
import pytest

from experiments.figures import figure1, two_parameter_loss


@pytest.fixture(scope="module")
def found():
    return figure1.measure()


def boundary(line):
    """Points on the border of a region, from its definition."""
    angles = np.linspace(0, 2 * np.pi, 200_001)
    unit = np.stack([np.cos(angles), np.sin(angles)])
    if line["p"] == "inf":
        unit = unit / np.abs(unit).max(0)
    scale = np.ones(2) if line["region"] == "sphere" else np.abs(line["w"])
    return np.array(line["w"])[:, None] + line["rho"] * scale[:, None] * unit


def test_the_maxima_are_those_of_a_dense_search(found):
    assert len(found) == 6
    for line in found:
        w1, w2 = boundary(line)
        largest = np.abs(w1 * np.maximum(w2, 0) - two_parameter_loss.TARGET).max()
        np.testing.assert_allclose(line["maximum"], largest, rtol=1e-4)
        w1, w2 = np.add(line["w"], line["eps"])
        np.testing.assert_allclose(
            abs(w1 * max(w2, 0) - two_parameter_loss.TARGET), largest, rtol=1e-4
        )


def test_only_the_sphere_tells_the_two_points_apart(found):
    assert len({round(line["loss"], 6) for line in found}) == 1
    maxima = figure1.maxima(found)
    for region in ("cuboid", "ellipsoid"):
        at_w, at_other = maxima[region]
        np.testing.assert_allclose(at_w, at_other, rtol=1e-4)
    at_w, at_other = maxima["sphere"]
    assert at_other > 1.2 * at_w


def test_in_closed_form(found):
    """The corner (1 + rho)^2 and, by symmetry, the diagonal (1 + rho / sqrt 2)^2."""
    maxima, rho = figure1.maxima(found), figure1.RHO
    np.testing.assert_allclose(
        maxima["cuboid"], (1 + rho) ** 2 - two_parameter_loss.TARGET, rtol=1e-4
    )
    np.testing.assert_allclose(
        maxima["ellipsoid"], (1 + rho / np.sqrt(2)) ** 2 - two_parameter_loss.TARGET, rtol=1e-4
    )
