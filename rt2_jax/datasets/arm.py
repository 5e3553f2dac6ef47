"""Action fields of RT-1's data (fractal20220817_data, and the tabletop) <-> the eight numbers of `actions.ARM`."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

# After terminate, in the order of `actions.ARM_NAMES`: the field and how many numbers it has.
_MOVES = {"world_vector": 3, "rotation_delta": 3, "gripper_closedness_action": 1}


def arm_action(action: Mapping[str, Any]) -> tf.Tensor:
    """float32[T, 8] of the fields of T steps."""
    terminate = tf.cast(action["terminate_episode"][:, :1] == 1, tf.float32)
    return tf.concat([terminate, *(action[name] for name in _MOVES)], axis=1)


def arm_fields(action: np.ndarray) -> dict[str, np.ndarray]:
    """The fields of one step's float32[8]; `arm_action` is the inverse."""
    moves = np.split(action[1:], np.cumsum([*_MOVES.values()])[:-1])
    # RT-1's one-hot: terminate, arm and gripper, base.
    terminate = np.array([1, 0, 0] if action[0] >= 0.5 else [0, 1, 0], np.int32)
    return dict(zip(_MOVES, moves, strict=True)) | {"terminate_episode": terminate}
