"""Figures 1 and 3, of two parameters, against searches of their own."""

import numpy as np

from experiments.figures import figure1, figure3
from experiments.figures.toy import TARGET


def loss(points):
    w1, w2 = np.transpose(points)
    return np.abs(w1 * np.maximum(w2, 0) - TARGET)


def largest(line):
    """Of the loss on the border of a region, searched densely."""
    angles = np.linspace(0, 2 * np.pi, 200_001)
    unit = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    if line["p"] == "inf":
        unit = unit / np.abs(unit).max(1, keepdims=True)
    scale = 1.0 if line["region"] == "sphere" else np.abs(line["w"])
    return loss(line["w"] + line["rho"] * scale * unit).max()


def test_only_the_sphere_of_figure_1_tells_the_two_points_apart():
    found = figure1.measure()
    assert len(found) == 6 and len({round(line["loss"], 6) for line in found}) == 1
    for line in found:
        at = loss([np.add(line["w"], line["eps"])])[0]
        np.testing.assert_allclose([line["maximum"], at], largest(line), rtol=1e-4)
    maxima = figure1.maxima(found)
    for region in ("cuboid", "ellipsoid"):
        np.testing.assert_allclose(*maxima[region], rtol=1e-4)
    at_w, at_other = maxima["sphere"]
    assert at_other > 1.2 * at_w


FIRST, SECOND = figure3.STARTS


def test_sam_misses_the_valley_from_the_second_start_and_asam_reaches_it_near_where_it_began():
    found = {(line["method"], tuple(line["start"])): line for line in figure3.measure()}
    end = np.array(found["sam", FIRST]["points"][-1])
    assert loss([end])[0] < 0.002
    np.testing.assert_allclose(end, np.sqrt(TARGET), atol=0.01)  # both weights are equal
    line = found["sam", SECOND]
    assert line["reached_after"] is None
    np.testing.assert_allclose(line["points"], np.tile(SECOND, (len(line["points"]), 1)))
    # Why: the ascent step from there, rho times the unit gradient, ends where ReLU is off.
    assert SECOND[1] - figure3.SAM_RHO * SECOND[0] / np.linalg.norm(SECOND) < 0

    valley_w1 = np.linspace(0.1, 0.5, 4001)
    valley = np.stack([valley_w1, TARGET / valley_w1], axis=1)
    ends = [np.array(found["asam", start]["points"][-1]) for start in figure3.STARTS]
    for start, end in zip(figure3.STARTS, ends, strict=True):
        assert found["asam", start]["reached_after"] is not None and loss([end])[0] < 0.002
        assert np.linalg.norm(end - start) < 1.2 * np.linalg.norm(valley - start, axis=1).min()
    assert np.linalg.norm(ends[0] - ends[1]) > 0.05  # SAM ends at one place, ASAM at two
