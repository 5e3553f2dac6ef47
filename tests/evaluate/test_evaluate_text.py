"""Scores of free text: known values, and any text at all."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rt2_jax.evaluate import text_metrics
from rt2_jax.evaluate.text_scores import (
    FROM_GRIPPER,
    exact_match,
    normalise,
    parse_detections,
    parse_location,
    token_f1,
)
from rt2_jax.sim.world.render import make_camera

WORDS = st.sampled_from(["red", "ball", "7", "50", "50;", "99;", "100", ".", ";", "-3"])
ANY_TEXT = st.text(max_size=40) | st.lists(WORDS, max_size=9).map(" ".join)


def test_exact_match_is_about_words_alone():
    assert exact_match(" Red cube. ", "red  cube")
    assert not exact_match("red cubes", "red cube")
    assert exact_match("sí", "Sí!")


def test_token_f1_of_known_pairs():
    assert token_f1("a red cube", "a red cube") == 1.0
    # Two of three given words are right, two of four wanted words are found.
    assert token_f1("red cube there", "a red cube here") == pytest.approx(2 * (2 / 3) * (2 / 4) / (2 / 3 + 2 / 4))
    assert token_f1("red red red", "red") == pytest.approx(0.5)
    assert token_f1("", "red") == 0.0
    assert token_f1("...", "") == 1.0


def test_places_are_two_integers_of_the_frame():
    assert parse_location("34 56") == (34, 56)
    assert parse_location(" 0 99.") == (0, 99)
    for text in ("34", "34 56 78", "100 3", "-3 4", "x 34 56", ""):
        assert parse_location(text) is None, text


def test_places_from_the_gripper_reach_further():
    assert parse_location("128 255", FROM_GRIPPER) == (128, 255)
    assert parse_location("256 3", FROM_GRIPPER) is None
    assert parse_detections("red cube 140 110; pink star 20 300", FROM_GRIPPER) == {"red cube": (140, 110)}
    assert parse_detections("red cube 140 110") == {}


def test_detections_skip_what_they_cannot_read():
    text = "blue ball 34 56; number 3 50 51;robot gripper 40 30; nonsense; 12 13; blue ball 1 1"
    assert parse_detections(text) == {"blue ball": (34, 56), "number 3": (50, 51), "robot gripper": (40, 30)}


@given(ANY_TEXT, ANY_TEXT)
def test_any_text_has_a_score(answer, target):
    assert 0.0 <= token_f1(answer, target) <= 1.0
    assert token_f1(answer, target) == pytest.approx(token_f1(target, answer))
    assert normalise(normalise(answer)) == normalise(answer)
    for measure in (text_metrics.answers, text_metrics.descriptions, text_metrics.locations, text_metrics.detections):
        for metric in measure([answer], [target]):
            assert metric.value is None or metric.value >= 0.0
            assert metric.unit != "fraction" or metric.value is None or metric.value <= 1.0


def test_locations_count_unreadable_answers_as_misses():
    metrics = text_metrics.locations(["50 50", "53 54", "90 50", "the middle"], ["50 50"] * 4)
    near, mean, median, readable = metrics
    assert near.value == 0.5 and near.interval[0] < 0.5 < near.interval[1]
    assert mean.value == pytest.approx((0 + 5 + 40) / 3) and not mean.higher_is_better
    assert median.value == pytest.approx(5.0)
    assert readable.value == 0.75


def test_nobody_points_anywhere():
    near, mean, _, readable = text_metrics.locations(["red"], ["50 50"])
    assert (near.value, mean.value, readable.value) == (0.0, None, 0.0)


def test_detection_wants_the_name_and_the_place():
    target = "blue ball 30 30; red cube 70 70; green cone 10 90"
    recall, precision, named = text_metrics.detections(["blue ball 32 35; red cube 10 10; pink star 10 90"], [target])
    assert recall.value == pytest.approx(1 / 3)
    assert precision.value == pytest.approx(1 / 3)
    assert named.value == pytest.approx(2 / 3)


def test_radii_are_what_their_names_say_in_the_tabletop_frame():
    camera = make_camera()
    middle, right = camera.project([[0.0, 0.0, 0.0], [0.03, 0.0, 0.0]])
    assert 100 * (right[0] - middle[0]) == pytest.approx(text_metrics.DETECTION_RADIUS, rel=0.05)
