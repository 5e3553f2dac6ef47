import dataclasses
import hashlib
import json
import math

import numpy as np
import pytest

from rt2_jax.actions import (
    ARM,
    ActionBins,
    ActionSpace,
    Embodiment,
    action_statistics,
    arm_space,
    card_from_json,
    card_to_json,
    load_card,
    save_card,
)
from rt2_jax.actions.embodiment import difference
from rt2_jax.errors import UserError


def test_shipped_tabletop_card():
    card = load_card("tabletop")
    assert card.space == arm_space(0.04, 0.3)


def test_shipped_fractal_card_has_rt1s_bounds_and_published_statistics():
    card = load_card("fractal20220817_data")
    assert card.space == ARM
    assert card.statistics.q01 == (None, -0.2245, -0.1482, -0.2316, -0.3518, -0.4193, -0.4364, None)
    assert card.statistics.q99 == (None, 0.1782, 0.1494, 0.2184, 0.5893, 0.3527, 0.4480, None)
    assert (card.num_episodes, card.num_steps, card.image_size) == (87212, 3786400, (256, 320))


@pytest.mark.parametrize("name", ["tabletop", "fractal20220817_data"])
def test_round_trip(name, tmp_path):
    card = load_card(name)
    assert card_from_json(json.loads(json.dumps(card_to_json(card)))) == card
    save_card(card, tmp_path / "new" / "card.json")
    assert load_card(tmp_path / "new" / "card.json") == card


def test_statistics():
    actions = np.tile(np.arange(101, dtype=np.float32)[:, None], (1, 8))
    statistics = action_statistics(actions)
    assert statistics.q01 == (1.0,) * 8 and statistics.q99 == (99.0,) * 8
    assert statistics.min == (0.0,) * 8 and statistics.max == (100.0,) * 8
    assert statistics.mean == (50.0,) * 8 and math.isclose(statistics.std[0], math.sqrt(850))
    card = Embodiment("mine", ActionBins(ARM), statistics=statistics)
    assert card_from_json(card_to_json(card)) == card


@pytest.mark.parametrize("actions", [np.zeros((0, 8)), np.zeros(8), np.full((2, 8), np.nan)])
def test_statistics_of_nothing_are_refused(actions):
    with pytest.raises(UserError, match="statistics"):
        action_statistics(actions)


def test_a_missing_card_names_those_that_ship():
    with pytest.raises(UserError, match="fractal20220817_data, tabletop"):
        load_card("no_such")


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"format": 1}', '{"format": 3, "name": "x"}'])
def test_a_broken_card_is_refused(text, tmp_path):
    path = tmp_path / "card.json"
    path.write_text(text)
    with pytest.raises(UserError, match="card"):
        load_card(path)


@pytest.mark.parametrize(
    "change", [{"colour": 1}, {"bins": None}, {"image_size": [1]}, {"statistics": {"mean": [1]}}, {"instructions": 3}]
)
def test_a_malformed_field_is_refused(change):
    with pytest.raises(UserError, match="card|space"):
        card_from_json(card_to_json(load_card("tabletop")) | change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_steps": "9"}, r"num_steps is '9' \(str\), needs int"),
        ({"num_episodes": -1}, "num_episodes is -1, allowed: 0 to"),
        ({"num_steps": 1.5}, "num_steps is 1.5"),
        ({"image_size": [64, 0]}, r"image_size\[1\] is 0, allowed: 1 to"),
        ({"image_size": ["64", "64"]}, r"image_size\[0\] is '64'"),
        ({"image_size": [64.9, 64]}, r"image_size\[0\] is 64.9"),
        ({"name": 5}, r"name is 5 \(int\), needs str"),
        ({"description": None}, "description is None, needs str"),
        ({"instructions": [1]}, r"instructions\[0\] is 1"),
        ({"instructions": "pick"}, "instructions is 'pick'"),
        ({"statistics": {}}, "statistics.mean is missing"),
        ({"colour": 1}, "unknown key colour = 1"),
    ],
)
def test_a_wrong_field_of_a_file_is_named_with_the_file(change, message, tmp_path):
    path = tmp_path / "card.json"
    path.write_text(json.dumps(card_to_json(load_card("tabletop")) | change))
    with pytest.raises(UserError, match=f"card {path}: .*{message}") as caught:
        load_card(path)
    assert "\n" not in str(caught.value)


def test_a_path_that_is_no_card_is_refused(tmp_path):
    for name in (str(tmp_path), "x" * 300, "x" * 5000, "a\0b"):
        with pytest.raises(UserError, match="is neither a file nor a shipped card"):
            load_card(name)
    (tmp_path / "card.json").write_bytes(b'{"name": "\xff"}')
    with pytest.raises(UserError, match="card.json is not JSON"):
        load_card(tmp_path / "card.json")
    for wrong in ([], None, "card"):
        with pytest.raises(UserError, match="bundle.json: card is .*needs a group|bundle.json: card is None"):
            card_from_json(wrong, "bundle.json", "card")


def test_statistics_of_another_width_are_refused():
    statistics = action_statistics(np.zeros((2, 7)))
    with pytest.raises(UserError, match="7 values of mean for 8"):
        dataclasses.replace(load_card("tabletop"), statistics=statistics)


def test_a_difference_names_the_first_thing_that_differs():
    card = load_card("tabletop")

    def changed(**fields):
        return dataclasses.replace(card, **fields)

    assert difference(card, card) is None
    assert difference(card, None) == ("dimensions", card.space.names, None)
    rt1 = changed(bins=dataclasses.replace(card.bins, decoding="rt1"))
    assert difference(card, rt1) == ("decoding", "centre", "rt1")
    assert difference(card, changed(chunk=4)) == ("the card's chunk", 1, 4)
    assert difference(card, changed(gripper="0 opens")) == ("the card's gripper", "", "0 opens")
    state = ActionBins(ActionSpace(("x",), (0.0,), (1.0,), ("m",)))
    assert difference(card, changed(proprioception=state)) == ("dimensions in the state", None, ("x",))
    described = changed(description="x")
    assert difference(card, described) is None
    assert difference(card, described, told=True)[0] == "the card's description"
    measured = changed(statistics=action_statistics(np.zeros((2, 8))))
    assert difference(measured, changed(statistics=action_statistics(np.ones((2, 8)))), told=True) == (
        "the card's mean of terminate", 0.0, 1.0,
    )  # fmt: skip


def test_the_hash_is_over_what_gives_meaning_and_that_of_an_older_card_stays():
    card = load_card("tabletop")
    old = {"space": card.space.to_json(), "num_bins": 256, "decoding": "centre", "continue_token": 1}
    old["terminate_token"] = 0
    assert card.sha256 == hashlib.sha256(json.dumps(old, sort_keys=True).encode()).hexdigest()
    told = {"name": "other", "description": "x", "num_steps": 3, "instructions": ("a",), "image_size": (3, 4)}
    assert dataclasses.replace(card, **told).sha256 == card.sha256
    bins = dataclasses.replace(card.bins, num_bins=21, first=9)
    space = dataclasses.replace(card.space, kinds=(*card.space.kinds[:7], "binary"))
    changes = [
        {"bins": bins}, {"bins": ActionBins(space)}, {"chunk": 2}, {"history": 2}, {"cameras": ("a", "b")},
        {"control_hz": 5.0}, {"robot": "arm"}, {"gripper": "1 opens"}, {"proprioception": bins_of_state()},
    ]  # fmt: skip
    changed = [dataclasses.replace(card, **change) for change in changes]
    assert len({card.sha256, *(one.sha256 for one in changed)}) == 1 + len(changes)
    for one in changed:
        assert card_from_json(json.loads(json.dumps(card_to_json(one)))) == one


def bins_of_state():
    return ActionBins(ActionSpace(("x", "open"), (0.0, 0.0), (1.0, 1.0), ("m", "flag"), ("continuous", "binary")))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cameras": ()}, "name at least one"),
        ({"cameras": ("a", "a")}, "each once"),
        ({"chunk": 0}, "chunk is 0, allowed: 1 to 256"),
        ({"history": 0}, "history is 0, allowed: 1 to 64"),
        ({"control_hz": 0.0}, "control_hz is 0.0"),
        ({"name": ""}, "name is ''"),
        ({"proprioception": ActionBins(ARM)}, "a state ends nothing"),
    ],
)
def test_an_embodiment_that_cannot_be_is_refused(change, message):
    with pytest.raises(UserError, match=message):
        dataclasses.replace(load_card("tabletop"), **change)


def test_a_card_of_the_first_format_is_read_as_what_it_was():
    card = load_card("tabletop")
    first = {"format": 1, "name": "tabletop", "space": card.space.to_json(), "num_steps": 3}
    assert card_from_json(first) == Embodiment("tabletop", ActionBins(card.space), num_steps=3)
    for later, named in ({"chunk": 2}, "unknown key chunk in a card of format 1"), ({"space": 1}, "bins.space is 1"):
        with pytest.raises(UserError, match=named):
            card_from_json(first | later)


def test_a_card_written_by_hand_needs_no_more_than_a_space():
    space = {"names": ["dx", "dy"], "low": [-0.1, -0.1], "high": [0.1, 0.1], "units": ["m", "m"]}
    card = card_from_json({"format": 2, "name": "pusher", "bins": {"space": space, "num_bins": 21}})
    assert card.num_integers == 2 and card.space.terminate is None and card.allowed.shape == (2, 21)
    with pytest.raises(UserError, match="card: unknown key space"):
        card_from_json({"format": 2, "name": "pusher", "space": space})
