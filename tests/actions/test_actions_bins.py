import dataclasses

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rt2_jax.actions import ARM, ActionBins, arm_space
from rt2_jax.errors import UserError

# A busy machine is no failure.
PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
SPACE = arm_space(0.04, 0.3)
CENTRE = ActionBins(SPACE)
RT1 = ActionBins(SPACE, decoding="rt1")
UNIT = hnp.arrays(np.float64, (3, 8), elements=st.floats(0, 1))
BINS = hnp.arrays(np.int32, (3, 8), elements=st.integers(0, 255))


def physical(unit):
    action = np.asarray(SPACE.low) + unit * (np.asarray(SPACE.high) - np.asarray(SPACE.low))
    action[..., 0] = np.round(unit[..., 0])
    return action.astype(np.float32)


@PATIENT
@given(UNIT)
def test_centre_errs_by_half_a_bin_at_most(unit):
    action = physical(unit)
    error = np.abs(CENTRE.decode(CENTRE.encode(action)) - action)
    rounding = 2 * np.finfo(np.float32).eps * np.asarray(SPACE.high)  # the action and its decoding are float32
    assert (error <= CENTRE.bin_size / 2 + rounding).all()
    assert (error[..., 0] == 0).all()


@PATIENT
@given(BINS)
def test_centre_bins_survive_a_round_trip(bins):
    bins[:, 0] %= 2
    np.testing.assert_array_equal(CENTRE.encode(CENTRE.decode(bins)), bins)


@PATIENT
@given(UNIT)
def test_rt1_truncates_to_the_left_edge(unit):
    action = physical(unit)
    bins = RT1.encode(action)
    # The tokenizer of RT-1's public code, in its float32.
    low, high = np.float32(SPACE.low), np.float32(SPACE.high)
    expected = ((np.clip(action, low, high) - low) / (high - low) * np.float32(255)).astype(np.int32)
    np.testing.assert_array_equal(bins[:, 1:], expected[:, 1:])
    error = action - RT1.decode(bins)
    assert (error[:, 1:] >= -1e-6).all() and (error[:, 1:] < RT1.bin_size[1:] * (1 + 1e-4)).all()


def test_known_bins():
    action = np.array([0, -0.04, 0, 0.04, -0.3, 0, 0.3, 1], np.float32)
    np.testing.assert_array_equal(CENTRE.encode(action), [1, 0, 128, 255, 0, 128, 255, 255])
    np.testing.assert_array_equal(RT1.encode(action), [1, 0, 127, 255, 0, 127, 255, 255])
    assert CENTRE.encode(action).dtype == np.int32
    decoded = CENTRE.decode(np.array([0, 0, 128, 255, 0, 0, 0, 0]))
    assert decoded.dtype == np.float32
    np.testing.assert_allclose(decoded[:4], [1.0, -0.04 + 0.04 / 256, 0.04 / 256, 0.04 - 0.04 / 256], rtol=1e-5)
    decoded = RT1.decode(np.array([1, 0, 0, 255, 0, 0, 0, 0]))
    np.testing.assert_allclose(decoded[:4], [0.0, -0.04, -0.04, 0.04], rtol=1e-6)


@PATIENT
@given(hnp.arrays(np.float32, (8,), elements=st.floats(-(2.0**90), 2.0**90, width=32)))
def test_values_outside_go_to_the_nearest_bin_and_are_counted(action):
    bins = CENTRE.encode(action)
    low, high = np.float32(SPACE.low), np.float32(SPACE.high)
    assert (bins[1:][action[1:] < low[1:]] == 0).all() and (bins[1:][action[1:] > high[1:]] == 255).all()
    np.testing.assert_array_equal(CENTRE.clipped(action), (action < low) | (action > high))


def test_clipped_counts_each_dimension():
    actions = np.zeros((5, 8), np.float32)
    actions[:3, 1] = 0.05
    actions[4, 7] = -1.5
    np.testing.assert_array_equal(CENTRE.clipped(actions), [0, 3, 0, 0, 0, 0, 0, 1])


def test_terminate_takes_two_bins():
    bins = ActionBins(SPACE, continue_token=5, terminate_token=9)
    actions = np.zeros((2, 8), np.float32)
    actions[1, 0] = 1
    np.testing.assert_array_equal(bins.encode(actions)[:, 0], [5, 9])
    np.testing.assert_array_equal(bins.decode(bins.encode(actions))[:, 0], [0, 1])
    assert bins.allowed.shape == (8, 256) and bins.allowed[1:].all()
    np.testing.assert_array_equal(np.flatnonzero(bins.allowed[0]), [5, 9])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_named(value):
    action = np.zeros((2, 8), np.float32)
    action[1, 3] = value
    with pytest.raises(UserError, match=rf"{value}.*'dz'.*\(1, 3\).*\[-0.04, 0.04\]"):
        CENTRE.encode(action)


@pytest.mark.parametrize(
    ("action", "named"),
    [
        (np.zeros(7, np.float32), r"\(7,\)"),
        (np.float32(0), r"\(\)"),
        (np.zeros(8, np.int32), "int32"),
        (["a"] * 8, "<U1"),
    ],
)
def test_a_wrong_width_or_dtype_is_named(action, named):
    for function in (CENTRE.encode, CENTRE.clipped):
        with pytest.raises(UserError, match=named):
            function(action)


@pytest.mark.parametrize(("dim", "value", "limit"), [(0, 2, "1 or 0"), (3, 256, r"0\.\.255"), (7, -1, r"0\.\.255")])
def test_a_bin_that_its_position_cannot_take_is_refused(dim, value, limit):
    bins = np.ones(8, np.int32)
    bins[dim] = value
    with pytest.raises(UserError, match=f"{value} in dimension '{SPACE.names[dim]}'.*{limit}"):
        CENTRE.decode(bins)
    with pytest.raises(UserError, match="float64"):
        CENTRE.decode(np.ones(8))


def test_fewer_bins():
    bins = ActionBins(ARM, num_bins=16)
    assert bins.allowed.shape == (8, 16)
    np.testing.assert_array_equal(bins.encode(np.float32(ARM.high))[1:], 15)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"decoding": "left"}, "left"),
        ({"num_bins": 257}, "257"),
        ({"terminate_token": 256}, "256"),
        ({"terminate_token": 1}, "both"),
    ],
)
def test_bad_settings_are_refused(change, named):
    with pytest.raises(UserError, match=named):
        dataclasses.replace(CENTRE, **change)


def test_json_round_trip():
    bins = ActionBins(SPACE, decoding="rt1", continue_token=3)
    assert ActionBins.from_json(bins.to_json()) == bins
    with pytest.raises(UserError, match="colour"):
        ActionBins.from_json(bins.to_json() | {"colour": 1})
    for change, message in (
        ({"num_bins": "256"}, r"num_bins is '256' \(str\), needs int"),
        ({"num_bins": 256.0}, r"num_bins is 256.0 \(float\), needs int"),
        ({"num_bins": True}, r"num_bins is True \(bool\), needs int"),
        ({"decoding": ["rt1"]}, "decoding is .* needs 'centre' or 'rt1'"),
        ({"terminate_token": None}, "terminate_token is None, needs int"),
        ({"space": 3}, "space is 3, needs a group of the fields of ActionSpace"),
    ):
        with pytest.raises(UserError, match=f"bundle.json: bins.{message}"):
            ActionBins.from_json(bins.to_json() | change, "bundle.json", "bins")
    with pytest.raises(UserError, match="action bins: decoding is missing"):
        ActionBins.from_json({key: value for key, value in bins.to_json().items() if key != "decoding"})
    with pytest.raises(UserError, match="action bins: holds a list"):
        ActionBins.from_json([])
