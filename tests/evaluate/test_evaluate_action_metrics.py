"""Actions of any space: errors in each dimension's own unit, flags as shares, nothing known by its place or name."""

import numpy as np
import pytest

from rt2_jax.actions import ActionBins
from rt2_jax.actions.space import ActionSpace
from rt2_jax.evaluate.action_metrics import score_dimensions

# A drone: no gripper, a flag in the middle, bounds that do not straddle zero.
DRONE = ActionSpace(
    names=("terminate", "vx", "light", "climb", "yaw"),
    low=(0.0, -2.0, 0.0, 1.0, -0.5),
    high=(1.0, 2.0, 1.0, 3.0, 0.5),
    units=("flag", "m/s", "flag", "m", "rad"),
    kinds=("terminate", "continuous", "binary", "continuous", "continuous"),
)


def test_each_dimension_is_scored_by_its_kind_in_its_unit():
    bins = ActionBins(DRONE)
    wanted = np.array([[1, 200, 255, 10, 128], [1, 128, 255, 20, 20], [0, 60, 0, 30, 250]], np.int32)
    decoded = wanted + np.array([[0, 2, 0, 1, 0], [0, 60, -255, 1, 0], [0, 100, 0, 1, 0]], np.int32)
    stop, vx, light, climb, yaw = score_dimensions(bins, wanted, decoded)
    assert (stop.recall, stop.precision, stop.unit, stop.mean_error) == (1.0, 1.0, "flag", None)
    assert (vx.unit, vx.token_accuracy, vx.recall) == ("m/s", 0.0, None)
    assert vx.median_error == pytest.approx(60 * 4 / 256) and vx.mean_error == pytest.approx(54 * 4 / 256)
    # Of 200, 128 and 60 the second is within a bin of zero, where a sign says nothing; the third went the wrong way.
    assert vx.sign_accuracy == 0.5
    assert (light.kind, light.recall, light.precision, light.token_accuracy) == (
        "binary",
        0.5,
        1.0,
        pytest.approx(2 / 3),
    )
    # Metres are shown in centimetres; what is never below zero has no sign to be right.
    assert (climb.unit, climb.sign_accuracy) == ("cm", None) and climb.mean_error == pytest.approx(200 / 256)
    assert (yaw.unit, yaw.mean_error, yaw.sign_accuracy) == ("deg", 0.0, 1.0)
