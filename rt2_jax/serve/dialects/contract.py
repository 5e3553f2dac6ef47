"""What every WebSocket dialect is, and how they read the fields of a message that somebody sent."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal, Protocol

import numpy as np

from rt2_jax.serve.engine import Serving
from rt2_jax.serve.observation import Observation
from rt2_jax.serve.refusal import Refusal
from rt2_jax.serve.session import Answer
from rt2_jax.serve.wire import EncodedImage


@dataclasses.dataclass(frozen=True)
class Heard:
    """What a message asks for.

    Attributes:
        kind: "observation" wants an answer; "reset" begins a new episode; "reply" wants `reply` sent back; "nothing".
        id: the client's number of the message, to be sent back.
        observation: of the kind "observation".
        reply: of the kind "reply".
        begins: of the kind "observation": a new episode begins with it.
    """

    kind: Literal["observation", "reset", "reply", "nothing"]
    id: int | None = None
    observation: Observation | None = None
    reply: bytes | None = None
    begins: bool = False


class Misread(Exception):
    """A message that is refused, with the client's number of it where that could be read."""

    def __init__(self, cause: Exception, id: int | None):
        super().__init__(str(cause))
        self.cause, self.id = cause, id


class Dialect(Protocol):
    """One connection's translator. `read` is called in a thread for decoding, one message at a time."""

    @property
    def name(self) -> str:
        """For logs and metrics; it may be known only after the first message."""
        ...

    @property
    def single(self) -> bool:
        """Whether a client takes one action at a time, so that the server keeps the rest of a chunk."""
        ...

    def greeting(self, serving: Serving, deadline: float) -> bytes:
        """What is sent on connecting; `deadline` in seconds."""
        ...

    def read(self, data: bytes) -> Heard:
        """What a message asks for.

        Raises:
            Misread: it is none of this dialect.
        """
        ...

    def answer(self, id: int | None, answer: Answer) -> bytes:
        """The message that holds an answer."""
        ...

    def refusal(self, id: int | None, refusal: Refusal) -> bytes | str:
        """The message that says why there is none; a str goes as a text frame."""
        ...


def invalid(what: str) -> Refusal:
    """A message that is not as it should be."""
    return Refusal("invalid", what)


def shown(value: Any) -> str:
    """A value in a message, shortened."""
    if value is None or isinstance(value, bool | float | str | bytes):
        return repr(value[:60] if isinstance(value, str | bytes) else value)
    return f"a {type(value).__name__}"


def optional_text(fields: Mapping[Any, Any], name: str) -> str | None:
    """A text, or None where the field is missing or null."""
    value = fields.get(name)
    if value is not None and not isinstance(value, str):
        raise invalid(f"{name} is {shown(value)}; send a text, or leave it out")
    return value


def needed_text(fields: Mapping[Any, Any], name: str) -> str:
    """A text that must be there."""
    value = optional_text(fields, name)
    if value is None:
        raise invalid(f"{name} is missing; send a text")
    return value


def images_of(value: Any, name: str = "images") -> dict[str, np.ndarray | EncodedImage]:
    """Frames by camera: arrays, files of PNG or JPEG (as `{"encoded": bytes}` or as vla-eval has them)."""
    if not isinstance(value, dict) or not value:
        raise invalid(f"{name} is {shown(value)}; send a map of camera to frame")
    images: dict[str, np.ndarray | EncodedImage] = {}
    for camera, frame in value.items():
        if not isinstance(camera, str):
            raise invalid(f"{name}: camera {shown(camera)}; name cameras by texts")
        if isinstance(frame, dict) and isinstance(frame.get("encoded"), bytes):
            frame = EncodedImage(frame["encoded"])
        if not isinstance(frame, np.ndarray | EncodedImage):
            raise invalid(
                f"{name}: camera {shown(camera)} is {shown(frame)}; send uint8[H, W, 3], or a PNG or JPEG file"
            )
        images[camera] = frame
    return images


def state_of(value: Any, name: str = "state") -> np.ndarray | None:
    """An array of numbers, or a list of them; None where there is none."""
    if value is None or isinstance(value, np.ndarray):
        return value
    if isinstance(value, list) and all(isinstance(entry, int | float) for entry in value):
        try:
            return np.array(value, np.float64)
        except OverflowError as error:
            raise invalid(f"{name} holds a number beyond float64; send smaller ones") from error
    raise invalid(f"{name} is {shown(value)}; send float[S]")


def deadline_of(value: Any, most: float) -> float:
    """Seconds of a `deadline_ms`, at most those that the server allows; those where there is none."""
    if value is None:
        return most
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise invalid(f"deadline_ms is {shown(value)}; send milliseconds above 0")
    return min(float(value) / 1000, most)
