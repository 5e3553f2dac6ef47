"""The tabletop's tasks and mixtures, in seqio's registries."""

import pathlib
from collections.abc import Callable, Mapping

import seqio
import tensorflow as tf

from rt2_jax.actions import load_card
from rt2_jax.datasets.arm import arm_action
from rt2_jax.datasets.tabletop import features
from rt2_jax.datasets.tabletop.mixtures import MIXTURES
from rt2_jax.datasets.task_spec import Tensors
from rt2_jax.datasets.tasks import MODES, register_image_text_task, register_robot_task
from rt2_jax.datasets.tfds_reading import check_dataset, holds_dataset
from rt2_jax.errors import UserError
from rt2_jax.inputs import prompts
from rt2_jax.sim.language.lexicon import GRIPPER
from rt2_jax.tokens import Vocabulary


def is_built(data_dir: str | pathlib.Path) -> bool:
    """Whether one of the tabletop's datasets is there, half-built and damaged ones included."""
    return any(map(holds_dataset, _folders(data_dir)))


def offers(name: str) -> bool:
    """Whether a task or mixture is one of the tabletop's."""
    return name in MIXTURES or any(name in weights for weights in MIXTURES.values())


def register(data_dir: str | pathlib.Path, vocabulary: Vocabulary | None = None) -> list[str]:
    """Enters the tabletop's tasks and mixtures in seqio's registries; calling it again replaces them.

    Args:
        data_dir: where `build` wrote the datasets; tasks of one that is not there are left out.
        vocabulary: None is the shipped one.

    Returns:
        The names of the tasks.

    Raises:
        UserError: neither dataset is there, or one is damaged or half-built.
    """
    vocabulary = vocabulary or Vocabulary.load()
    robot, web = _folders(data_dir)
    names = []
    if holds_dataset(robot):
        check_dataset(robot)
        card = load_card(robot / features.CARD_NAME)
        for mode in MODES:
            name = f"{features.ROBOT_NAME}_{mode}"
            register_robot_task(name, robot, card, tabletop_steps, mode=mode, use_last_step=True, vocabulary=vocabulary)
            names.append(name)
    if holds_dataset(web):
        for kind, prompt in _WEB_PROMPTS.items():
            name = f"{features.WEB_NAME}_{kind}"
            register_image_text_task(name, web, _annotations_of(kind), prompt, kind=kind, vocabulary=vocabulary)
            names.append(name)
    if not names:
        raise UserError(
            f"{data_dir} holds neither {features.ROBOT_NAME} nor {features.WEB_NAME}; run `rt2 data build` first"
        )
    for mixture, weights in MIXTURES.items():
        seqio.MixtureRegistry.remove(mixture)
        if set(weights) <= set(names):
            seqio.MixtureRegistry.add(mixture, list(weights.items()))
    return names


def _folders(data_dir: str | pathlib.Path) -> list[pathlib.Path]:
    return [pathlib.Path(data_dir) / name / features.VERSION for name in (features.ROBOT_NAME, features.WEB_NAME)]


def tabletop_steps(episode: Tensors) -> Tensors:
    """Images, actions, instructions and plans of a tabletop episode."""
    steps = episode["steps"]
    return {
        "image": steps["observation"]["image"],
        "action": arm_action(steps["action"]),
        "instruction": steps["observation"]["natural_language_instruction"],
        "plan": steps["plan"],
    }


def _annotations_of(kind: str) -> Callable[[Tensors], Tensors]:
    def annotations(example: Tensors) -> Tensors:
        rows = example["annotations"]
        mine = rows["kind"] == kind
        fields = {key: tf.boolean_mask(rows[key], mine) for key in ("lang", "question", "target")}
        return {"image": example["image"]} | fields

    return annotations


def _alt_text_prompt(row: Mapping[str, str]) -> str:
    position, text = row["question"].split("|", 1)
    return prompts.alt_text_prompt(row["lang"], position, text)


# All kinds of annotations, each a task.
_WEB_PROMPTS: Mapping[str, Callable[[Mapping[str, str]], str]] = {
    "caption": lambda row: prompts.caption_prompt(row["lang"]),
    "vqa": lambda row: prompts.vqa_prompt(row["lang"], row["question"]),
    "alt_text": _alt_text_prompt,
    "detect": lambda row: prompts.detection_prompt(),
    "locate": lambda row: prompts.locate_prompt(row["question"]),
    "detect_from_gripper": lambda row: prompts.detection_prompt(origin=GRIPPER),
    "locate_from_gripper": lambda row: prompts.locate_prompt(row["question"], origin=GRIPPER),
}
