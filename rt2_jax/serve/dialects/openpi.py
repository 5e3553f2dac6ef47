"""openpi-client's dialect (0.1.2): the server's metadata first, then a map for each map; errors are text frames.

    client: {"observation/image": uint8[H, W, 3], "observation/wrist_image": ..., "observation/state": float[S],
             "prompt": str}
    server: {"actions": float32[k, width], "server_timing": {...}, "text": str}

Frames may also stand in a map `images`, the state as `state`, and `embodiment`, `mode` and `reset` (true: a new episode
begins with this observation) may be added. What else a client sends has no use here and is left out.
"""

from typing import Any

import numpy as np

from rt2_jax.serve.dialects.contract import (
    Heard,
    Misread,
    images_of,
    invalid,
    needed_text,
    optional_text,
    shown,
    state_of,
)
from rt2_jax.serve.observation import Observation
from rt2_jax.serve.refusal import Refusal
from rt2_jax.serve.session import Answer
from rt2_jax.serve.wire import EncodedImage, pack

_PREFIX = "observation/"
_STATE = f"{_PREFIX}state"


def read(message: Any) -> Heard:
    """What a map asks for; `Misread` for what is none of this dialect."""
    try:
        if not isinstance(message, dict):
            raise invalid(f"message: {shown(message)}; send a map")
        frames = {
            name.removeprefix(_PREFIX): value
            for name, value in message.items()
            if isinstance(name, str) and name.startswith(_PREFIX) and _is_frame(value)
        }
        if not frames:
            frames = message["images"] if "images" in message else {"image": message.get("image")}
        observation = Observation(
            images=images_of(frames, "images (observation/...)"),
            instruction=needed_text(message, "prompt"),
            embodiment=optional_text(message, "embodiment"),
            mode=optional_text(message, "mode") or "action",
            state=state_of(message.get(_STATE, message.get("state")), _STATE),
        )
        return Heard("observation", observation=observation, begins=message.get("reset") is True)
    except Exception as error:
        raise Misread(error, None) from error


def _is_frame(value: Any) -> bool:
    return isinstance(value, EncodedImage) or (isinstance(value, np.ndarray) and value.ndim == 3)


def answer(answer: Answer) -> bytes:
    """The reply to an observation."""
    timing = {
        "queue_ms": 1000 * answer.queue_seconds,
        "infer_ms": 1000 * answer.model_seconds,
        "total_ms": 1000 * answer.total_seconds,
    }
    return pack({"actions": answer.actions, "server_timing": timing, "text": answer.text})


def refusal(refusal: Refusal) -> str:
    """A text frame, at which openpi-client raises."""
    return f"{refusal.code}: {refusal.message}"
