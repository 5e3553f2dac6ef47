"""The schemas of the two datasets: what a demonstration and a web image look like on disk. Imports TensorFlow."""

import io
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from rt2_jax.datasets.arm import arm_fields
from rt2_jax.datasets.tabletop.demonstrations import Demonstration, WebImage

ROBOT_NAME = "tabletop_robot"
WEB_NAME = "tabletop_web"
VERSION = "1.0.0"


def robot_features(image_size: int) -> tfds.features.FeaturesDict:
    """RLDS episodes with the step layout of fractal20220817_data (RT-1's), plus a plan in words."""
    scalar, tensor, text = tfds.features.Scalar, tfds.features.Tensor, tfds.features.Text
    step = {
        "observation": {"image": _image(image_size), "natural_language_instruction": text()},
        "action": {
            "world_vector": tensor(shape=(3,), dtype=np.float32),
            "rotation_delta": tensor(shape=(3,), dtype=np.float32),
            "gripper_closedness_action": tensor(shape=(1,), dtype=np.float32),
            "terminate_episode": tensor(shape=(3,), dtype=np.int32),
        },
        "plan": text(),
        "reward": scalar(dtype=np.float32),
        "is_first": scalar(dtype=np.bool_),
        "is_last": scalar(dtype=np.bool_),
        "is_terminal": scalar(dtype=np.bool_),
    }
    metadata = {
        "seed": scalar(dtype=np.int64),
        "skill": text(),
        "split": text(),
        "success": scalar(dtype=np.bool_),
        "scene": text(),
    }
    return tfds.features.FeaturesDict({"steps": tfds.features.Dataset(step), "episode_metadata": metadata})


def robot_example(demonstration: Demonstration) -> dict[str, Any]:
    """The episode as `robot_features` wants it.

    The last step (``is_last``) carries the terminating action, and that action is valid, as in fractal20220817_data;
    RLDS itself calls a last step's action undefined.
    """
    steps = []
    last = len(demonstration.frames) - 1
    for number, (frame, action) in enumerate(zip(demonstration.frames, demonstration.actions, strict=True)):
        steps.append(
            {
                "observation": {
                    "image": io.BytesIO(frame),
                    "natural_language_instruction": demonstration.instruction,
                },
                "action": arm_fields(action),
                "plan": demonstration.plans[number],
                "reward": np.float32(number == last),
                "is_first": number == 0,
                "is_last": number == last,
                "is_terminal": number == last,
            }
        )
    return {"steps": steps, "episode_metadata": demonstration.metadata}


def web_features(image_size: int) -> tfds.features.FeaturesDict:
    """An image and a sequence of annotations; `sim.language.describe.Annotation` says what their fields mean."""
    text = tfds.features.Text
    annotation = {"kind": text(), "lang": text(), "question": text(), "target": text()}
    return tfds.features.FeaturesDict(
        {"image": _image(image_size), "annotations": tfds.features.Sequence(annotation), "scene": text()}
    )


def web_example(example: WebImage) -> dict[str, Any]:
    """The image as `web_features` wants it."""
    return {"image": io.BytesIO(example.image), "annotations": list(example.annotations), "scene": example.scene}


def _image(size: int) -> tfds.features.Image:
    return tfds.features.Image(shape=(size, size, 3), dtype=np.uint8, encoding_format="jpeg")
