"""The dialect of vla-eval, the field's evaluation harness (0.8, protocol 1): maps of type, payload, seq and timestamp.

    > hello {...}            < hello {harness_version, protocol_version, model_server, capabilities, observation_params}
    > episode_start {...}    (no reply)
    > observation {images: {camera: frame}, task_description: str, states: float[S]}
    < action {actions: float32[width]}  or  error {error: str}, with the observation's seq
    > episode_end {...}      (no reply)

The harness's worlds stand still while they wait for an action, and it gives up after 30 seconds; so an observation is
of use for `DEADLINE` seconds here, whatever the server allows robots.
"""

import time
from typing import Any

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
from rt2_jax.serve.engine import Serving
from rt2_jax.serve.observation import Observation
from rt2_jax.serve.refusal import Refusal
from rt2_jax.serve.session import Answer
from rt2_jax.serve.wire import pack

PROTOCOL = 1
HARNESS = "0.8.0"
DEADLINE = 25.0


def is_message(message: Any) -> bool:
    """Whether a map is one of this dialect."""
    return isinstance(message, dict) and "type" in message and "payload" in message


def hello(serving: Serving, seq: int = 0) -> dict[str, Any]:
    """The server's hello as a map; it tells what the harness's benchmark is to send."""
    robots = serving.policy.embodiments.values()
    wanted = {
        "send_state": any(robot.proprioception for robot in robots),
        "send_wrist_image": any("wrist" in camera for robot in robots for camera in robot.cameras),
    }
    payload = {
        "harness_version": HARNESS,
        "protocol_version": PROTOCOL,
        "model_server": f"rt2_jax {serving.name}".strip(),
        "capabilities": {},
    }
    params = {name: True for name, is_wanted in wanted.items() if is_wanted}
    return _message("hello", payload | ({"observation_params": params} if params else {}), seq)


def read(message: dict[Any, Any], serving: Serving) -> Heard:
    """What a map asks for; `Misread` for what is none of this dialect."""
    seq = None
    try:
        seq = message.get("seq")
        if type(seq) is not int:
            seq = None
            raise invalid("message: seq is missing; number messages by integers")
        kind, payload = needed_text(message, "type"), message.get("payload")
        if kind == "hello":
            return Heard("reply", seq, reply=pack(hello(serving, seq), "vla_eval"))
        if kind in ("episode_start", "episode_end"):
            return Heard("reset")
        if kind == "error":
            return Heard("nothing")
        if kind != "observation":
            raise invalid(f"message: type {shown(kind)}; send hello, episode_start, observation or episode_end")
        if not isinstance(payload, dict):
            raise invalid(f"payload is {shown(payload)}; send a map")
        return Heard("observation", seq, _observation(payload))
    except Exception as error:
        raise Misread(error, seq) from error


def _observation(payload: dict[Any, Any]) -> Observation:
    return Observation(
        images=images_of(payload.get("images")),
        instruction=needed_text(payload, "task_description"),
        embodiment=optional_text(payload, "embodiment"),
        mode=optional_text(payload, "mode") or "action",
        state=state_of(payload.get("states", payload.get("state")), "states"),
        deadline=DEADLINE,
    )


def answer(seq: int | None, answer: Answer) -> bytes:
    """The action message: one action, float32[width]."""
    return pack(_message("action", {"actions": answer.actions[0]}, seq or 0), "vla_eval")


def refusal(seq: int | None, refusal: Refusal) -> bytes:
    """The error message."""
    return pack(_message("error", {"error": f"{refusal.code}: {refusal.message}"}, seq or 0), "vla_eval")


def _message(kind: str, payload: dict[str, Any], seq: int) -> dict[str, Any]:
    return {"type": kind, "payload": payload, "seq": seq, "timestamp": time.time()}
