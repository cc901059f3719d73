"""Figure 3: SAM misses the valley from the second start, ASAM reaches it near where it began."""

import numpy as np
import pytest

from experiments.figures import figure3, two_parameter_loss


@pytest.fixture(scope="module")
def found():
    lines = figure3.measure()
    return {(line["method"], tuple(line["start"])): line for line in lines}


FIRST, SECOND = figure3.STARTS


def loss(points):
    w1, w2 = np.transpose(points)
    return np.abs(w1 * np.maximum(w2, 0) - two_parameter_loss.TARGET)


def test_sam_goes_along_the_valley_to_where_both_weights_are_equal(found):
    line = found["sam", FIRST]
    end = np.array(line["points"][-1])
    assert loss([end])[0] < 0.002
    np.testing.assert_allclose(end, np.sqrt(two_parameter_loss.TARGET), atol=0.01)


def test_sam_never_moves_from_the_second_start(found):
    line = found["sam", SECOND]
    assert line["reached_after"] is None
    np.testing.assert_allclose(line["points"], np.tile(SECOND, (len(line["points"]), 1)))
    # Why: the ascent step from there, rho times the unit gradient, ends where ReLU is off.
    w1, w2 = SECOND
    gradient = -np.array([w2, w1])
    ascended = SECOND + figure3.SAM_RHO * gradient / np.linalg.norm(gradient)
    assert ascended[1] < 0


def test_asam_reaches_the_valley_near_where_it_began(found):
    valley_w1 = np.linspace(0.1, 0.5, 4001)
    valley = np.stack([valley_w1, two_parameter_loss.TARGET / valley_w1], axis=1)
    for start in figure3.STARTS:
        line = found["asam", start]
        assert line["reached_after"] is not None
        end = np.array(line["points"][-1])
        assert loss([end])[0] < 0.002
        shortest = np.linalg.norm(valley - start, axis=1).min()
        assert np.linalg.norm(end - start) < 1.2 * shortest
    # SAM ends at one place, ASAM at two.
    ends = [np.array(found["asam", start]["points"][-1]) for start in figure3.STARTS]
    assert np.linalg.norm(ends[0] - ends[1]) > 0.05


@pytest.mark.parametrize("lr", [0.01, 0.1])
def test_at_other_learning_rates(lr):
    lines = {(r["method"], tuple(r["start"])): r for r in figure3.measure(lr, 300)}
    assert lines["sam", SECOND]["reached_after"] is None
    assert lines["sam", SECOND]["loss_final"] == pytest.approx(
        two_parameter_loss.TARGET - 0.0099, rel=1e-3
    )
    assert lines["asam", SECOND]["reached_after"] is not None
    assert lines["sam", FIRST]["reached_after"] is not None
