"""Our own WebSocket dialect, at /v1/act: msgpack maps, arrays as openpi writes them; see docs/serving.md."""

from typing import Any

from rt2_jax.actions.embodiment import Embodiment
from rt2_jax.actions.envelope import Envelope
from rt2_jax.serve.dialects.contract import (
    Heard,
    Misread,
    deadline_of,
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
from rt2_jax.serve.session import Answer, modes_served
from rt2_jax.serve.wire import pack, unpack

PROTOCOL = 1


class Native:
    """See `Dialect`; `deadline` is what the server allows at most, in seconds."""

    name = "native"
    single = False

    def __init__(self, deadline: float, max_bytes: int):
        self._deadline, self._max_bytes = deadline, max_bytes

    def greeting(self, serving: Serving, deadline: float) -> bytes:
        """The server's hello."""
        return pack(
            {
                "type": "hello",
                "protocol": PROTOCOL,
                "bundle": serving.identity,
                "modes": modes_served(serving),
                "deadline_ms": 1000 * deadline,
                "image_size": serving.policy.image_size,
                "model": {"name": serving.name, "parameters": serving.parameters, "step": serving.step},
                "embodiments": described(serving),
            }
        )

    def read(self, data: bytes) -> Heard:
        """See `Dialect.read`."""
        number = None
        try:
            message = unpack(data, self._max_bytes)
            if not isinstance(message, dict):
                raise invalid(f"message: {shown(message)}; send a map with a type")
            kind = needed_text(message, "type")
            if kind == "reset":
                return Heard("reset")
            if kind != "observation":
                raise invalid(f"message: type {shown(kind)}; send reset or observation")
            number = _number(message.get("id"))
            return Heard("observation", number, self._observation(message))
        except Exception as error:
            raise Misread(error, number) from error

    def _observation(self, message: dict[Any, Any]) -> Observation:
        return Observation(
            images=images_of(message.get("images")),
            instruction=needed_text(message, "instruction"),
            embodiment=optional_text(message, "embodiment"),
            mode=optional_text(message, "mode") or "action",
            state=state_of(message.get("state")),
            deadline=deadline_of(message.get("deadline_ms"), self._deadline),
            carried_out=_count(message.get("carried_out")),
            strict=True,
        )

    def answer(self, id: int | None, answer: Answer) -> bytes:
        """See `Dialect.answer`."""
        return pack({"type": "action", "id": id} | told(answer))

    def refusal(self, id: int | None, refusal: Refusal) -> bytes:
        """See `Dialect.refusal`."""
        return pack({"type": "error", "id": id, "code": refusal.code, "message": refusal.message})


def described(serving: Serving) -> dict[str, dict[str, Any]]:
    """What a client must know of each embodiment to send observations and to understand actions."""
    robots = serving.policy.embodiments.values()
    return {robot.name: _described(robot, serving.envelopes.get(robot.name)) for robot in robots}


def _described(robot: Embodiment, envelope: Envelope | None) -> dict[str, Any]:
    space, state = robot.space, robot.proprioception
    return {
        "cameras": list(robot.cameras),
        "history": robot.history,
        "chunk": robot.chunk,
        "control_hz": robot.control_hz,
        "action": {field: list(getattr(space, field)) for field in ("names", "low", "high", "units", "kinds")},
        "proprioception": state and {"names": list(state.space.names), "units": list(state.space.units)},
        "envelope": envelope and envelope.to_json(),
    }


def told(answer: Answer) -> dict[str, Any]:
    """The fields of an answer, arrays as they are."""
    fields: dict[str, Any] = {
        "actions": answer.actions,
        "bins": answer.bins,
        "text": answer.text,
        "logprob": answer.logprob,
        "envelope": {"limited": list(answer.limited), "held": answer.held},
        "timing": {
            "queue_ms": 1000 * answer.queue_seconds,
            "model_ms": 1000 * answer.model_seconds,
            "total_ms": 1000 * answer.total_seconds,
        },
    }
    return fields if answer.confidence is None else fields | {"confidence": answer.confidence}


def _count(value: Any) -> int | None:
    if value is not None and (type(value) is not int or value < 0):
        raise invalid(f"carried_out is {shown(value)}; send how many actions were carried out, 0 or more")
    return value


def _number(value: Any) -> int:
    if type(value) is not int:
        raise invalid(f"id is {shown(value)}; number observations by integers")
    return value
