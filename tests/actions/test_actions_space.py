import dataclasses
import math

import pytest

from rt2_jax.actions import ARM, ActionSpace, arm_space
from rt2_jax.errors import UserError


def test_arm_is_rt2s_order_with_rt1s_bounds():
    assert ARM.names == ("terminate", "dx", "dy", "dz", "droll", "dpitch", "dyaw", "gripper")
    assert ARM.low == (0, -1, -1, -1, -math.pi / 2, -math.pi / 2, -math.pi / 2, -1)
    assert ARM.high == (1, 1, 1, 1, math.pi / 2, math.pi / 2, math.pi / 2, 1)
    assert ARM.width == 8


def test_json_round_trip():
    space = arm_space(0.04, 0.3)
    assert ActionSpace.from_json(space.to_json()) == space


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"low": (0.0,)}, "1 low"),
        ({"names": ("dx", *ARM.names[1:])}, "two dimensions are named 'dx'"),
        ({"high": (1.0, -1.0, *ARM.high[2:])}, "'dx'"),
        ({"high": (*ARM.high[:7], math.nan)}, r"high\[7\] is nan, allowed"),
        ({"low": (*ARM.low[:7], -math.inf)}, r"low\[7\] is -inf, allowed"),
        ({"high": (*ARM.high[:7], 1e300)}, r"high\[7\] is 1e\+300, allowed: -1000000000.0 to 1000000000.0"),
        ({"high": (*ARM.high[:7], "1")}, r"high\[7\] is '1' \(str\), needs float"),
        ({"high": (*ARM.high[:7], -1.0)}, "'gripper'"),
    ],
)
def test_a_bad_space_is_refused_by_name(change, named):
    with pytest.raises(UserError, match=named):
        dataclasses.replace(ARM, **change)


def test_malformed_json_is_refused():
    fields = ARM.to_json()
    with pytest.raises(UserError, match="units"):
        ActionSpace.from_json({key: fields[key] for key in ("names", "low", "high")})
    with pytest.raises(UserError, match="low"):
        ActionSpace.from_json(fields | {"low": 3})
    with pytest.raises(UserError, match="unknown key colour"):
        ActionSpace.from_json(fields | {"colour": 3})
    with pytest.raises(UserError, match=r"bundle.json: card.space.names\[1\] is 5 \(int\), needs str"):
        ActionSpace.from_json(fields | {"names": ["terminate", *[5] * 7]}, "bundle.json", "card.space")
    for wrong in (None, [], "space"):
        with pytest.raises(UserError, match="action space: holds a"):
            ActionSpace.from_json(wrong)


def test_terminate_need_not_be_first_nor_there_at_all():
    fields = {"low": (-1.0, 0.0), "high": (1.0, 1.0), "units": ("m", "flag")}
    last = ActionSpace(names=("dx", "terminate"), **fields)
    assert last.kinds == ("continuous", "terminate") and last.terminate == 1
    done = ActionSpace(names=("dx", "done"), kinds=("continuous", "terminate"), **fields)
    assert done.terminate == 1 and ActionSpace.from_json(done.to_json()) == done
    assert ActionSpace(("dx",), (-1.0,), (1.0,), ("m",)).terminate is None
    assert ARM.kinds == ("terminate", *["continuous"] * 7)


def test_a_space_whose_kinds_are_told_by_its_names_is_written_as_ever():
    assert set(ARM.to_json()) == {"names", "low", "high", "units"}


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"names": (), "low": (), "high": (), "units": ()}, "at least one dimension"),
        ({"kinds": ("continuous",)}, "2 units, 1 kinds"),
        ({"kinds": ("continuous", "knob")}, r"kinds\[1\] is 'knob'; allowed: continuous, binary, terminate"),
        ({"kinds": ("terminate", "terminate")}, "two dimensions are of the kind 'terminate'"),
        (
            {"kinds": ("terminate", "binary")},
            r"'a' is of the kind 'terminate' with bounds \[-1.0, 1.0\]; give \[0, 1\]",
        ),
        ({"names": ("a", "a")}, "two dimensions are named 'a'"),
    ],
)
def test_a_space_that_cannot_be_is_refused(fields, named):
    good = {"names": ("a", "b"), "low": (-1.0, 0.0), "high": (1.0, 1.0), "units": ("m", "flag")}
    with pytest.raises(UserError, match=named):
        ActionSpace(**(good | fields))
