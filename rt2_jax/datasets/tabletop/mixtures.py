"""The tabletop's mixtures, as plain data: task -> weight. `tasks.register` enters them in seqio's registry."""

from collections.abc import Mapping

# What the VLM is pretrained on. Places weigh most, in the frame and from the gripper: actions build on them.
WEB: Mapping[str, float] = {
    "tabletop_web_detect": 0.10,
    "tabletop_web_locate": 0.15,
    "tabletop_web_detect_from_gripper": 0.25,
    "tabletop_web_locate_from_gripper": 0.25,
    "tabletop_web_vqa": 0.15,
    "tabletop_web_caption": 0.06,
    "tabletop_web_alt_text": 0.04,
}
# The web half when co-fine-tuning: the same without detection, whose targets are by far the longest and whose lesson is
# learnt by then.
CO_TRAINED_WEB: Mapping[str, float] = {
    "tabletop_web_locate": 0.20,
    "tabletop_web_locate_from_gripper": 0.30,
    "tabletop_web_vqa": 0.25,
    "tabletop_web_caption": 0.15,
    "tabletop_web_alt_text": 0.10,
}
# Of the robot half: actions, and plans followed by actions (RT-2, section 4.4), which point at things
# (sim/tasks/plans.py).
ROBOT: Mapping[str, float] = {"tabletop_robot_action": 0.2, "tabletop_robot_plan": 0.8}


def _blend(robot_share: float) -> dict[str, float]:
    robot = {task: round(robot_share * weight, 6) for task, weight in ROBOT.items()}
    web = {task: round((1 - robot_share) * weight, 6) for task, weight in CO_TRAINED_WEB.items()}
    return robot | web


# The robot's share of the mixture: about 50% for RT-2-PaLI-X, about 66% for RT-2-PaLM-E.
MIXTURES: Mapping[str, Mapping[str, float]] = {
    "tabletop_cofinetune_50": _blend(0.50),
    "tabletop_cofinetune_66": _blend(0.66),
    "tabletop_robot_only": dict(ROBOT),
    "tabletop_web_only": dict(WEB),
    "tabletop_detect_only": {"tabletop_web_detect": 1.0},
}
