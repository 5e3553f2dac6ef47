import dataclasses

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rt2_jax.actions import ARM, ActionBins, ActionSpace, arm_space
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


NAMES = st.text("abcdef", min_size=1, max_size=4)


@st.composite
def any_bins(draw):
    """Bins of any space: any width, kinds, counts, and places in 0..255."""
    width = draw(st.integers(1, 9))
    kinds = [draw(st.sampled_from(["continuous", "binary"])) for _ in range(width)]
    ends = draw(st.none() | st.integers(0, width - 1))
    low = [draw(st.floats(-100, 100, width=32)) for _ in range(width)]
    size = [draw(st.floats(0.015625, 100, width=32)) for _ in range(width)]
    high = [start + length for start, length in zip(low, size, strict=True)]
    if ends is not None:
        kinds[ends], low[ends], high[ends] = "terminate", 0.0, 1.0
    names = [f"d{number}" for number in range(width)]
    space = ActionSpace(tuple(names), tuple(low), tuple(high), ("m",) * width, tuple(kinds))
    num_bins = draw(st.integers(2, 256))
    pair = draw(st.permutations(range(min(num_bins, 5))))[:2]
    first = draw(st.integers(0, min(254, 256 - num_bins)))
    return ActionBins(space, num_bins, continue_token=pair[0], terminate_token=pair[1], first=first)


@PATIENT
@given(any_bins(), st.data())
def test_any_space_comes_back_within_half_a_bin(bins, data):
    space = bins.space
    low, high = np.asarray(space.low), np.asarray(space.high)
    unit = data.draw(hnp.arrays(np.float64, (4, space.width), elements=st.floats(0, 1)))
    two = np.asarray([kind != "continuous" for kind in space.kinds])
    unit = np.where(two, np.round(unit), unit)
    action = low + unit * (high - low)
    integers = bins.encode(action)
    assert integers.dtype == np.int32 and integers.min() >= bins.first
    assert bins.allowed[np.arange(space.width), integers].all()
    decoded = bins.decode(integers)
    error = np.abs(decoded - action)
    assert (error[:, ~two] <= bins.bin_size[~two] / 2 + 1e-4).all() and (error[:, two] <= 1e-4).all()
    np.testing.assert_array_equal(bins.encode(decoded), integers)
    assert ActionBins.from_json(bins.to_json()) == bins


@PATIENT
@given(any_bins())
def test_a_position_takes_two_integers_or_all_of_the_range(bins):
    assert bins.allowed.shape == (bins.width, bins.first + bins.num_bins) and not bins.allowed[:, : bins.first].any()
    counts = bins.allowed.sum(1)
    for kind, count in zip(bins.space.kinds, counts, strict=True):
        assert count == (bins.num_bins if kind == "continuous" else 2)
    if bins.first:
        with pytest.raises(UserError, match=r"the limit is"):
            bins.decode(np.full(bins.width, bins.first - 1))


def test_language_tables_integers():
    """RT-2 wrote -10 to 10 where these are 0 to 20, or 118 to 138."""
    space = ActionSpace(("dx", "dy"), (-0.105, -0.105), (0.105, 0.105), ("m", "m"))
    for first in (0, 118):
        bins = ActionBins(space, num_bins=21, first=first)
        np.testing.assert_array_equal(
            bins.encode(np.array([[-0.1, 0.0], [0.1, 0.03]])), first + np.array([[0, 10], [20, 13]])
        )
        np.testing.assert_allclose(
            bins.decode(first + np.array([[0, 10], [20, 13]])), [[-0.1, 0], [0.1, 0.03]], atol=1e-7
        )
    with pytest.raises(UserError, match="21 bins from 240 end at 260, the vocabulary's integers at 255"):
        ActionBins(space, num_bins=21, first=240)


def test_a_binary_dimension_is_one_of_two_values():
    space = ActionSpace(("dx", "open"), (-1.0, 0.0), (1.0, 0.08), ("m", "m"), ("continuous", "binary"))
    bins = ActionBins(space, num_bins=100, first=50)
    np.testing.assert_array_equal(bins.encode(np.array([[0.0, 0.03], [0.0, 0.05]]))[:, 1], [50, 149])
    np.testing.assert_allclose(bins.decode(np.array([[60, 50], [60, 149]]))[:, 1], [0.0, 0.08])
    with pytest.raises(UserError, match="70 in dimension 'open' at .*, the limit is 50 or 149"):
        bins.decode(np.array([60, 70]))
