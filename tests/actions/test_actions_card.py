import dataclasses
import json
import math

import numpy as np
import pytest

from rt2_jax.actions import (
    ARM,
    DatasetCard,
    action_statistics,
    arm_space,
    card_from_json,
    card_to_json,
    load_card,
    save_card,
)
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
    card = DatasetCard("mine", ARM, statistics=statistics)
    assert card_from_json(card_to_json(card)) == card


@pytest.mark.parametrize("actions", [np.zeros((0, 8)), np.zeros(8), np.full((2, 8), np.nan)])
def test_statistics_of_nothing_are_refused(actions):
    with pytest.raises(UserError, match="statistics"):
        action_statistics(actions)


def test_a_missing_card_names_those_that_ship():
    with pytest.raises(UserError, match="fractal20220817_data, tabletop"):
        load_card("no_such")


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"format": 1}', '{"format": 2, "name": "x"}'])
def test_a_broken_card_is_refused(text, tmp_path):
    path = tmp_path / "card.json"
    path.write_text(text)
    with pytest.raises(UserError, match="card"):
        load_card(path)


@pytest.mark.parametrize(
    "change", [{"colour": 1}, {"space": None}, {"image_size": [1]}, {"statistics": {"mean": [1]}}, {"instructions": 3}]
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
