"""REST, `POST /act`, as OpenVLA's clients send it: JSON with json-numpy's arrays; and forms with image files.

    {"image": {"__numpy__": base64, "dtype": "|u1", "shape": [H, W, 3]}, "instruction": str, "unnorm_key": str or null}
    -> {"__numpy__": base64, "dtype": "<f4", "shape": [width]}

`unnorm_key` names the embodiment. A request may be wrapped as {"encoded": its JSON as a text}; then the reply is a text
too. `images` (by camera) may stand for `image`, and `mode`, `state`, `deadline_ms`, `session` (a name that keeps a
robot's frames between requests) and `reset` may be added.
"""

import base64
import binascii
import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np

from rt2_jax.errors import first_line
from rt2_jax.serve.dialects.contract import (
    deadline_of,
    images_of,
    invalid,
    needed_text,
    optional_text,
    shown,
    state_of,
)
from rt2_jax.serve.dialects.native import told
from rt2_jax.serve.observation import Observation
from rt2_jax.serve.session import Answer
from rt2_jax.serve.wire import EncodedImage, to_array

NAME = "openvla"
_KEY = "__numpy__"
_LONGEST_SESSION = 200


@dataclasses.dataclass(frozen=True)
class Call:
    """One request: what is seen, whose it is, and how the reply is written.

    Attributes:
        observation: what is seen.
        session: the robot's name; None for a robot that is seen once.
        begins: a new episode of that robot begins.
        wrapped: the reply goes as a text.
    """

    observation: Observation
    session: str | None
    begins: bool
    wrapped: bool


def read_json(body: bytes, deadline: float) -> Call:
    """A request's JSON; `deadline` is what the server allows, in seconds.

    Raises:
        Refusal, WireError: it is none of this dialect.
    """
    fields, wrapped = _object(body), False
    if isinstance(fields.get("encoded"), str) and len(fields) == 1:
        fields, wrapped = _object(fields["encoded"].encode("utf-8")), True
    return _call({name: _plain(value, name) for name, value in fields.items()}, deadline, wrapped)


def read_form(fields: Mapping[str, str], files: Mapping[str, bytes], deadline: float) -> Call:
    """A form's fields, and its files by camera; `state` is a JSON list.

    Raises:
        Refusal, WireError: it is none of this dialect.
    """
    values: dict[str, Any] = dict(fields)
    for name in ("state", "deadline_ms", "reset"):
        if name in values:
            values[name] = _json(values[name].encode("utf-8"), name)
    values["images"] = {name: EncodedImage(data) for name, data in files.items()}
    return _call(values, deadline, wrapped=False)


def array_reply(answer: Answer, wrapped: bool) -> bytes:
    """The action, float32[width], as json-numpy writes it."""
    action = np.ascontiguousarray(answer.actions[0], "<f4")
    coded = {_KEY: base64.b64encode(action.tobytes()).decode(), "dtype": "<f4", "shape": list(action.shape)}
    text = json.dumps(coded)
    return json.dumps(text if wrapped else coded).encode()


def object_reply(answer: Answer) -> bytes:
    """All that there is to say, as plain JSON."""
    return json.dumps(told(answer) | {"embodiment": answer.embodiment.name}, default=np.ndarray.tolist).encode()


def _call(fields: Mapping[str, Any], deadline: float, wrapped: bool) -> Call:
    images = fields.get("images")
    if images is None:
        if fields.get("image") is None:
            raise invalid("image is missing; send a frame, or images by camera")
        images = {"image": fields["image"]}
    session = optional_text(fields, "session")
    if session is not None and len(session) > _LONGEST_SESSION:
        raise invalid(f"session has {len(session)} characters, at most {_LONGEST_SESSION}; shorten it")
    observation = Observation(
        images=images_of(images),
        instruction=needed_text(fields, "instruction"),
        embodiment=optional_text(fields, "unnorm_key") or optional_text(fields, "embodiment"),
        mode=optional_text(fields, "mode") or "action",
        state=state_of(fields.get("state")),
        deadline=deadline_of(fields.get("deadline_ms"), deadline),
    )
    return Call(observation, session, fields.get("reset") is True, wrapped)


def _object(body: bytes) -> dict[str, Any]:
    fields = _json(body, "body")
    if not isinstance(fields, dict):
        raise invalid(f"body is {shown(fields)}; send a JSON object with image and instruction")
    return fields


def _json(text: bytes, what: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, OverflowError) as error:
        raise invalid(f"{what} is no JSON ({first_line(error)}); send one JSON value in UTF-8") from error


def _plain(value: Any, what: str) -> Any:
    """A value of the JSON with its arrays read; they stand at the top, or in a map by camera."""
    if not isinstance(value, dict):
        return value
    if _KEY in value:
        return _array(value, what)
    return {name: _array(entry, name) if isinstance(entry, dict) else entry for name, entry in value.items()}


def _array(value: dict[str, Any], what: str) -> np.ndarray | EncodedImage:
    if isinstance(value.get("encoded"), str):
        return EncodedImage(_base64(value["encoded"], what))
    data = value.get(_KEY)
    if not isinstance(data, str):
        raise invalid(f"{what} is {shown(value)} without {_KEY}; send what json-numpy writes")
    return to_array(_base64(data, what), value.get("dtype"), value.get("shape"), what)


def _base64(text: str, what: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise invalid(f"{what} is no base64 ({first_line(error)}); send what json-numpy writes") from error
