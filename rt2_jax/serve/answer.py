"""What a server answers to an observation, as it comes and as the robot's side hands it on."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from rt2_jax.actions.envelope import Guarded
from rt2_jax.serve.failures import ProtocolError
from rt2_jax.serve.greeting import ServedRobot


@dataclasses.dataclass(frozen=True)
class Answer:
    """What to do; `k` is the robot's `chunk`.

    Attributes:
        actions: float32[k, width] in physical units: what to do now and in the k - 1 steps that follow. Where the robot
            has an envelope, they have been through its guard here as well as on the server.
        bins: int32[k, width]: the integers that the model said, before any guard.
        text: what the model said in full.
        logprob: of the model's answer.
        confidence: float32[k, width], log-probability of each integer; None where the server does not tell.
        limited: what this side's guard limited, by `actions.envelope.Guarded.limited`.
        held: whether it held any action of the chunk.
        server_limited, server_held: the same of the server's guard.
        timing: milliseconds on the server, by stage.
        reconnected: the connection broke while the answer was waited for, and the observation was sent once more
            within its deadline.
    """

    actions: np.ndarray
    bins: np.ndarray
    text: str
    logprob: float
    confidence: np.ndarray | None = None
    limited: tuple[str, ...] = ()
    held: bool = False
    server_limited: tuple[str, ...] = ()
    server_held: bool = False
    timing: Mapping[str, float] = dataclasses.field(default_factory=dict)
    reconnected: bool = False

    def guarded(self, steps: tuple[Guarded, ...]) -> "Answer":
        """The answer with its actions as a guard gave them back."""
        return dataclasses.replace(
            self,
            actions=np.stack([step.action for step in steps]),
            limited=tuple(dict.fromkeys(name for step in steps for name in step.limited)),
            held=any(step.held for step in steps),
        )


def read_answer(message: Mapping[str, Any], robot: ServedRobot) -> Answer:
    """The answer of a message of type "action", before any guard of this side.

    Raises:
        ProtocolError: numbers of another shape or type than the robot's, or a field that is none.
    """
    try:
        envelope, timing = message.get("envelope") or {}, message.get("timing") or {}
        return Answer(
            actions=_numbers(message, "actions", "f", np.float32, robot),
            bins=_numbers(message, "bins", "i", np.int32, robot),
            text=str(message.get("text", "")),
            logprob=float(message.get("logprob", math.nan)),
            confidence=None
            if message.get("confidence") is None
            else _numbers(message, "confidence", "f", np.float32, robot),
            server_limited=tuple(str(name) for name in envelope.get("limited", ())),
            server_held=bool(envelope.get("held", False)),
            timing={str(stage): float(spent) for stage, spent in timing.items()},
        )
    except (TypeError, ValueError, AttributeError) as error:
        raise ProtocolError(f"the server's action is none ({error}); update one of the two") from error


def _numbers(message: Mapping[str, Any], name: str, kind: str, dtype: Any, robot: ServedRobot) -> np.ndarray:
    value, shape = message.get(name), (robot.chunk, len(robot.space.names))
    if not isinstance(value, np.ndarray) or value.dtype.kind != kind or value.shape != shape:
        found = f"{value.dtype}{list(value.shape)}" if isinstance(value, np.ndarray) else type(value).__name__
        raise ValueError(f"its {name} are {found}, not {np.dtype(dtype)}{list(shape)}")
    return value.astype(dtype)  # a copy, which can be written to
