import pytest

from rt2_jax.errors import UserError
from rt2_jax.inputs import prompts


def test_the_papers_words():
    assert prompts.robot_prompt("pick red cube") == "Q: what action should the robot take to pick red cube? A:"
    assert prompts.plan_prompt("I'm hungry.") == "Instruction: I'm hungry."
    target = prompts.plan_target("pick rxbar chocolate", "1 128 124 136 121 158 111 255")
    assert target == "Plan: pick rxbar chocolate. Action: 1 128 124 136 121 158 111 255"
    assert prompts.plan_target("pick rxbar chocolate.", "1 128 124 136 121 158 111 255") == target
    assert prompts.caption_prompt("en") == "Generate caption in en"
    assert prompts.vqa_prompt("de", "Was ist das?") == "Answer in de: Was ist das?"
    assert prompts.alt_text_prompt("fr", 0, "un cube") == "Generate the alt-text in fr at 0: un cube <extra_id_0>"
    assert prompts.detection_prompt() == "Detect all objects"
    assert prompts.detection_prompt("robot gripper") == "Detect all objects from the robot gripper"
    assert prompts.locate_prompt("red cube") == "Locate the red cube"
    assert prompts.locate_prompt("red cube", "robot gripper") == "Locate the red cube from the robot gripper"


def test_robot_and_state_are_told_where_there_are_any():
    asked = prompts.robot_prompt("pick it", "left  arm", "12 200")
    assert asked == "Q: what action should the left arm take to pick it? State: 12 200 A:"
    assert prompts.plan_prompt("pick it", "left arm", "7") == "Instruction for the left arm: pick it State: 7"
    assert prompts.plan_prompt("pick it", "robot", "7") == "Instruction: pick it State: 7"
    with pytest.raises(UserError, match="robot is empty"):
        prompts.robot_prompt("pick it", " ")


def test_stray_white_space_makes_no_difference():
    assert prompts.robot_prompt("  pick \t red\n cube ") == prompts.robot_prompt("pick red cube")


@pytest.mark.parametrize("empty", ["", "  ", "\n\t"])
@pytest.mark.parametrize(
    "make",
    [
        prompts.robot_prompt,
        prompts.plan_prompt,
        prompts.caption_prompt,
        prompts.locate_prompt,
        lambda text: prompts.plan_target(text, "1"),
        lambda text: prompts.plan_target(f"{text}.", "1"),
        lambda text: prompts.plan_target("pick", text),
        lambda text: prompts.vqa_prompt("en", text),
        lambda text: prompts.alt_text_prompt("en", "0", text),
    ],
)
def test_an_empty_field_is_refused(make, empty):
    with pytest.raises(UserError, match="empty"):
        make(empty)


def test_an_instruction_that_is_no_text_is_refused():
    with pytest.raises(UserError, match="bytes"):
        prompts.robot_prompt(b"pick")
