"""rt2_jax.actions.envelope: whatever comes in, what comes out is inside every limit, and what was inside stays."""

import dataclasses
import json
import os
import subprocess
import sys

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from rt2_jax.actions import ARM, ActionSpace, Bounds, Envelope, Guard
from rt2_jax.errors import UserError

SPACE = ActionSpace(
    names=("terminate", "dx", "dy", "joint", "gripper"),
    low=(0.0, -0.1, -0.1, -2.0, -1.0),
    high=(1.0, 0.1, 0.1, 2.0, 1.0),
    units=("flag", "m", "m", "rad", "opening"),
    kinds=("terminate", "continuous", "continuous", "continuous", "binary"),
)
STATE = ("x", "force")
ENVELOPE = Envelope(
    step={"dx": (-0.05, 0.05), "joint": (-1.0, 1.5)},
    rate={"dx": 0.03, "joint": 0.25},
    workspace={"x": Bounds(0.2, 0.6, "dx"), "y": Bounds(-0.3, 0.3, "dy", scale=0.5, start=0.0), "force": Bounds(0, 20)},
    still={"joint": None},
)
HOLDS = dataclasses.replace(ENVELOPE, on_violation="hold")

WIDE = st.floats(width=32) | st.floats(-3, 3, width=32) | st.sampled_from([0.0, 1.0, -1.0, 0.1, -0.1, 0.05])
ACTIONS = st.lists(WIDE, min_size=5, max_size=5).map(lambda row: np.array(row, np.float32))
STATES = st.none() | st.tuples(st.floats(0, 1) | st.floats(), st.floats(-5, 30) | st.floats()).map(np.array)
STEPS = st.lists(st.tuples(ACTIONS, STATES), min_size=1, max_size=8)


def guard(envelope=ENVELOPE):
    return Guard(envelope, SPACE, STATE)


def action(terminate=0.0, dx=0.0, dy=0.0, joint=0.0, gripper=1.0):
    return np.array([terminate, dx, dy, joint, gripper], np.float32)


FREE = np.array([0.4, 0.0])


def within(value, low, high):
    return np.float32(low) <= value <= np.float32(high)


@pytest.mark.parametrize("envelope", [ENVELOPE, HOLDS], ids=["clip", "hold"])
@hypothesis.settings(max_examples=80)
@hypothesis.given(steps=STEPS)
def test_a_guarded_action_is_inside_every_limit_whatever_comes_in(envelope, steps):
    robot, last, x, y = guard(envelope), None, None, 0.0
    for raw, state in steps:
        if state is not None:
            x = float(state[0]) if np.isfinite(state[0]) else None
        before = x
        found = robot.apply(raw, state)
        terminate, dx, dy, joint, gripper = found.action.tolist()
        assert found.action.dtype == np.float32
        assert terminate in (0.0, 1.0)
        assert gripper in (-1.0, 1.0)
        assert within(dx, -0.05, 0.05)
        assert within(dy, -0.1, 0.1)
        assert within(joint, -1.0, 1.5)
        # The position goes nowhere outside, and where it is outside already no further.
        if x is None:
            assert dx == 0
        else:
            edge = 1e-12 + 1e-12 * abs(x)
            assert min(x, 0.2) - edge <= x + dx <= max(x, 0.6) + edge
            x += dx
        y += 0.5 * dy
        assert -0.3 - 1e-9 <= y <= 0.3 + 1e-9
        if last is not None:
            assert abs(joint - last[3]) <= 0.25
            if abs(dx - last[1]) > 0.03 + 1e-12:  # then the workspace left nothing of what the rate allows
                least, most = (0, 0) if before is None else (min(0, 0.2 - before), max(0, 0.6 - before))
                assert most < last[1] - 0.03 or least > last[1] + 0.03
        last = found.action


@pytest.mark.parametrize("envelope", [ENVELOPE, HOLDS], ids=["clip", "hold"])
@hypothesis.settings(max_examples=60)
@hypothesis.given(steps=STEPS)
def test_an_action_that_was_guarded_is_guarded_to_itself(envelope, steps):
    once, twice = guard(envelope), guard(envelope)
    for raw, state in steps:
        first = once.apply(raw, state)
        np.testing.assert_array_equal(twice.apply(first.action, state).action, first.action)


@hypothesis.settings(max_examples=60)
@hypothesis.given(
    steps=st.lists(
        st.tuples(st.floats(-0.01, 0.01), st.floats(-0.1, 0.1), st.sampled_from([-1.0, 1.0])),
        max_size=5,
    ),
    joint=st.floats(-1, 1.5, width=32),
)
def test_what_is_inside_all_limits_stays_bit_for_bit(steps, joint):
    robot = guard()
    for dx, dy, gripper in steps:
        raw = action(dx=dx, dy=dy, joint=joint, gripper=gripper)
        if abs(robot._positions[1] + 0.5 * dy) > 0.29:
            continue
        found = robot.apply(raw, FREE)
        assert found.action.tobytes() == raw.tobytes()
        assert (found.limited, found.held) == ((), False)
    assert robot.counts == ({"actions": robot.counts["actions"]} if robot.counts else {})


def test_the_action_that_came_in_is_not_written_to():
    raw = action(dx=9)
    raw.flags.writeable = False
    guard().apply(raw, FREE)
    assert raw[1] == 9


def test_clip_moves_the_numbers_that_are_beyond_and_leaves_the_others():
    found = guard().apply(action(dx=0.09, dy=0.02, joint=-1.7), FREE)
    np.testing.assert_array_equal(found.action, action(dx=0.05, dy=0.02, joint=-1.0))
    assert found.limited == ("dx", "joint")
    assert not found.held


def test_hold_replaces_the_whole_action():
    robot = guard(HOLDS)
    robot.apply(action(dx=0.02, dy=0.02, joint=0.5, gripper=-1), FREE)
    found = robot.apply(action(dx=0.09, dy=0.02, joint=0.6, gripper=1), FREE)
    np.testing.assert_array_equal(found.action, action(joint=0.5, gripper=-1))
    assert found.held
    assert found.limited == ("dx",)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("envelope", [ENVELOPE, HOLDS], ids=["clip", "hold"])
def test_a_number_that_is_none_holds(envelope, value):
    robot = guard(envelope)
    robot.apply(action(dx=0.02, joint=0.5), FREE)
    found = robot.apply(action(dx=0.02, dy=value, joint=0.6), FREE)
    np.testing.assert_array_equal(found.action, action(joint=0.5))
    assert found.held
    assert found.limited == ("dy",)
    found = robot.apply(np.full(5, value), FREE)
    np.testing.assert_array_equal(found.action, action(joint=0.5))
    assert found.limited == SPACE.names


def test_holding_stops_as_fast_as_the_rate_allows():
    robot = guard()
    robot.apply(action(dx=0.03), FREE)
    robot.apply(action(dx=0.05), FREE)
    held = [robot.apply(action(dx=np.nan), FREE).action[1] for _ in range(3)]
    np.testing.assert_allclose(held, [0.02, 0, 0], atol=1e-7)


def test_the_rate_counts_from_what_was_carried_out():
    robot = guard()
    found = [robot.apply(action(joint=1.5), FREE).action[3] for _ in range(1)]
    found += [robot.apply(action(joint=-1.0), FREE).action[3] for _ in range(3)]
    np.testing.assert_allclose(found, [1.5, 1.25, 1.0, 0.75], atol=1e-6)
    robot.reset()
    assert robot.apply(action(joint=-1.0), FREE).action[3] == -1.0


def test_the_workspace_goes_before_the_rate():
    robot = guard()
    robot.apply(action(dx=0.05), np.array([0.4, 0.0]))
    found = robot.apply(action(dx=0.05), np.array([0.595, 0.0]))
    assert 0.004 < found.action[1] <= 0.005
    assert found.limited == ("dx",)


def test_outside_the_workspace_the_way_back_is_open_and_no_other():
    robot = guard()
    assert robot.apply(action(dx=0.02), np.array([0.7, 0.0])).action[1] == 0
    np.testing.assert_allclose(robot.apply(action(dx=-0.02), np.array([0.7, 0.0])).action[1], -0.02)


def test_a_position_that_the_state_tells_follows_the_actions_between_two_states():
    robot = guard()
    robot.apply(action(dx=0.03), np.array([0.55, 0.0]))
    found = robot.apply(action(dx=0.03))
    np.testing.assert_allclose(found.action[1], 0.02, atol=1e-6)
    assert robot.apply(action(dx=0.01)).action[1] < 1e-6
    np.testing.assert_allclose(robot.apply(action(dx=0.01), FREE).action[1], 0.01)


def test_a_position_without_a_state_adds_up_the_actions_from_its_start():
    robot = guard()
    moved = sum(float(robot.apply(action(dy=0.1), FREE).action[2]) for _ in range(20)) * 0.5
    np.testing.assert_allclose(moved, 0.3, atol=1e-6)
    robot.reset()
    np.testing.assert_allclose(robot.apply(action(dy=0.1), FREE).action[2], 0.1)


def test_a_position_that_is_not_known_or_only_watched_and_outside_holds():
    robot = guard()
    found = robot.apply(action(dx=0.01, joint=0.5))
    assert found.held
    assert found.limited == ("dx", "x", "force")
    assert not robot.apply(action(dx=0.01), FREE).held
    assert robot.apply(action(dx=0.01), np.array([0.4, 20.5])).limited == ("force",)
    assert robot.apply(action(), np.array([np.nan, 0.0])).limited == ("x",)


def test_a_binary_number_between_its_two_goes_to_the_nearer_and_terminate_passes():
    found = guard().apply(action(terminate=1.0, gripper=0.3), FREE)
    np.testing.assert_array_equal(found.action, action(terminate=1.0, gripper=1.0))
    assert found.limited == ("gripper",)
    assert guard(HOLDS).apply(action(terminate=1.0, dx=1), FREE).action[0] == 1.0
    assert guard().apply(action(terminate=np.nan), FREE).action[0] == 0.0


def test_it_counts():
    robot = guard()
    robot.apply(action(dx=1.0), FREE)
    robot.apply(action(dx=np.nan, joint=9), FREE)
    robot.apply(action(), FREE)
    robot.reset()
    assert robot.counts == {"actions": 3, "held": 1, "limited:dx": 2, "limited:joint": 1}


def test_a_chunk_goes_on_from_what_was_carried_out_of_the_last():
    robot = guard()
    chunk = np.stack([action(joint=0.25 * number) for number in range(4)])
    assert [each.limited for each in robot.apply_chunk(chunk, FREE)] == [()] * 4
    # Two were carried out, so the last joint was 0.25; 0.75 would be the last of four.
    again = robot.apply_chunk(np.stack([action(joint=1.0)]), FREE, carried_out=2)
    np.testing.assert_allclose(again[0].action[3], 0.5)
    np.testing.assert_allclose(robot.apply_chunk(np.stack([action(joint=1.0)]), FREE)[0].action[3], 0.75)
    with pytest.raises(UserError, match="carried_out is -1"):
        robot.apply_chunk(chunk, FREE, carried_out=-1)


@pytest.mark.parametrize(
    ("wrong", "state"),
    [(np.zeros(4), FREE), (np.zeros((1, 5)), FREE), (np.array(["a"] * 5), FREE), (np.zeros(5), np.zeros(3))],
)
def test_another_shape_is_a_mistake_of_the_callers(wrong, state):
    with pytest.raises(UserError, match="needs"):
        guard().apply(wrong, state)


def test_json_and_back():
    fields = json.loads(json.dumps(ENVELOPE.to_json()))
    assert Envelope.from_json(fields) == ENVELOPE
    assert Envelope.from_json(HOLDS.to_json()).on_violation == "hold"
    assert Envelope.from_json({}) == Envelope()


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ([], "holds a list"),
        ({"steps": {}}, "unknown key 'steps'"),
        ({"step": []}, "step is"),
        ({"step": {"dx": 0.1}}, r"give \[low, high\]"),
        ({"step": {"dx": [0.1]}}, r"give \[low, high\]"),
        ({"step": {"dx": [0.2, 0.1]}}, "low < high"),
        ({"step": {"dx": ["a", 1]}}, "give numbers"),
        ({"step": {"dx": [float("nan"), 1]}}, "give numbers"),
        ({"step": {"dx": [False, True]}}, "give numbers"),
        ({"rate": {"dx": 0}}, "above 0"),
        ({"rate": {"dx": None}}, "above 0"),
        ({"rate": {"dx": float("inf")}}, "above 0"),
        ({"still": {"dx": "0"}}, "null to repeat"),
        ({"workspace": {"x": [0, 1]}}, "workspace.x: holds a list"),
        ({"workspace": {"x": {"low": 0}}}, "workspace.x.high is missing"),
        ({"workspace": {"x": {"low": 0, "high": 1, "by": "dx"}}}, "unknown key 'by'"),
        ({"workspace": {"x": {"low": 1, "high": 1}}}, "low < high"),
        ({"workspace": {"x": {"low": 0, "high": None}}}, "give numbers"),
        ({"workspace": {"x": {"low": 0, "high": 1, "moved_by": 3}}}, "moved_by"),
        ({"workspace": {"x": {"low": 0, "high": 1, "moved_by": "dx", "scale": 0}}}, "scale is 0"),
        ({"workspace": {"x": {"low": 0, "high": 1, "start": 0.5}}}, "name one by moved_by"),
        ({"workspace": {"x": {"low": 0, "high": 1, "moved_by": "dx", "start": 2}}}, "outside"),
        (
            {"workspace": {name: {"low": 0, "high": 1, "moved_by": "dx"} for name in "xy"}},
            "one dimension moves two positions",
        ),
        ({"on_violation": "stop"}, "choose clip or hold"),
    ],
)
def test_a_file_that_is_none_is_refused_by_name(fields, told):
    with pytest.raises(UserError, match=told) as refused:
        Envelope.from_json(fields, "limits.json")
    assert str(refused.value).startswith("limits.json: ")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"step": {"dz": (-1, 1)}}, "step names 'dz', the action has terminate, dx"),
        ({"rate": {"gripper": 1}}, "rate names 'gripper', which is binary"),
        ({"still": {"joint": None, "terminate": 0}}, "which is terminate"),
        ({"still": {}}, "still of 'joint' is missing"),
        ({"still": {"joint": 1.9}}, "outside its limits"),
        ({"still": {"joint": None, "dx": 0.1}}, "so its still is 0"),
        ({"step": {"dx": (0.01, 0.02)}}, "still of 'dx' is 0.0, outside"),
        ({"step": {"joint": (3, 4)}}, "leaves nothing"),
        ({"workspace": {"x": Bounds(0, 1, "dz")}, "still": dict.fromkeys(("dx", "dy", "joint"))}, "no continuous"),
        ({"workspace": {"x": Bounds(0, 1, "gripper")}, "still": dict.fromkeys(("dx", "dy", "joint"))}, "no continuous"),
        ({"workspace": {"z": Bounds(0, 1)}, "still": dict.fromkeys(("dx", "dy", "joint"))}, "nothing tells where 'z'"),
        (
            {"workspace": {"x": Bounds(0, 1, "dx", start=0.5)}, "still": dict.fromkeys(("dy", "joint"))},
            "leave out start",
        ),
    ],
)
def test_an_envelope_of_another_robot_is_refused(change, told):
    with pytest.raises(UserError, match=told):
        guard(dataclasses.replace(ENVELOPE, **change))


def test_an_empty_envelope_keeps_the_action_in_its_space():
    arm = Guard(Envelope(still=dict.fromkeys(ARM.names[1:], 0.0)), ARM)
    found = arm.apply(np.full(8, 9.0))
    np.testing.assert_array_equal(found.action, np.float32(ARM.high))


def test_it_needs_numpy_alone():
    script = (
        "import sys\n"
        "import rt2_jax.actions.envelope\n"
        "print(*[name for name in ('msgspec', 'jax', 'PIL', 'msgpack') if name in sys.modules])\n"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=os.environ, check=True)
    assert ran.stdout.split() == []
