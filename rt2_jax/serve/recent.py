"""What a status page shows: the last frames with what was done about them, and a quarter of an hour of figures.

Bounded, in memory alone, and gone with the process.
"""

import base64
import collections
import dataclasses
import time
from typing import Any

import numpy as np

from rt2_jax.inputs.images import encode_jpeg
from rt2_jax.serve.observation import Row
from rt2_jax.serve.session import Answer, Session

FRAMES = 32
# Of the history: a point tells of this many seconds.
POINT_SECONDS, POINTS = 2.0, 450
_MOST_TIMES = 2048  # of one point; more are counted, and not looked at


@dataclasses.dataclass(frozen=True)
class _Frame:
    number: int
    when: float
    session: Session
    row: Row
    answer: Answer


@dataclasses.dataclass
class _Point:
    """What came in `POINT_SECONDS`; times in seconds."""

    when: float
    answers: int = 0
    refusals: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    waiting: int = 0
    batches: list[int] = dataclasses.field(default_factory=list)
    totals: list[float] = dataclasses.field(default_factory=list)
    models: list[float] = dataclasses.field(default_factory=list)


class Recent:
    """The last `frames` answers with their frames, and points of the history."""

    def __init__(self, frames: int = FRAMES):
        self._frames: collections.deque[_Frame] = collections.deque(maxlen=frames)
        self._points: collections.deque[_Point] = collections.deque(maxlen=POINTS)
        self._number = 0

    def answered(self, session: Session, row: Row, answer: Answer) -> None:
        """Remembers an answer."""
        self._number += 1
        self._frames.append(_Frame(self._number, time.time(), session, row, answer))
        point = self._point()
        point.answers += 1
        if len(point.totals) < _MOST_TIMES:
            point.totals.append(answer.total_seconds)
            if answer.batch:
                point.models.append(answer.model_seconds)
                point.batches.append(answer.batch)

    def refused(self, code: str) -> None:
        """Remembers a refusal."""
        self._point().refusals[code] += 1

    def waiting(self, count: int) -> None:
        """Remembers how many requests waited, the most of each point."""
        point = self._point()
        point.waiting = max(point.waiting, count)

    def _point(self) -> _Point:
        now = time.time() // POINT_SECONDS * POINT_SECONDS
        if not self._points or self._points[-1].when != now:
            self._points.append(_Point(now))
        return self._points[-1]

    def history(self) -> list[dict[str, Any]]:
        """The points, oldest first; times in milliseconds. Moments at which nothing came have no point."""
        return [
            {
                "time": point.when,
                "answers": point.answers,
                "refusals": dict(point.refusals),
                "waiting": point.waiting,
                "batch": None if not point.batches else sum(point.batches) / len(point.batches),
                "total_ms": _quantiles(point.totals),
                "model_ms": _quantiles(point.models),
            }
            for point in self._points
        ]

    def frames(self, since: int = 0) -> list[dict[str, Any]]:
        """The remembered answers of numbers above `since`, oldest first, each with its frame as a JPEG's data URL.

        It takes milliseconds a frame: for a thread.
        """
        return [_told(frame) for frame in list(self._frames) if frame.number > since]


def _told(frame: _Frame) -> dict[str, Any]:
    answer, space = frame.answer, frame.answer.embodiment.space
    picture = base64.b64encode(encode_jpeg(frame.row.now, 85)).decode()
    return {
        "number": frame.number,
        "time": frame.when,
        "session": frame.session.number,
        "dialect": frame.session.dialect,
        "embodiment": answer.embodiment.name,
        "mode": frame.row.mode,
        "instruction": frame.row.instruction,
        "text": answer.text,
        "names": list(space.names),
        "units": list(space.units),
        "action": [float(value) for value in answer.actions[0]],
        "logprob": answer.logprob,
        "limited": list(answer.limited),
        "held": answer.held,
        "queue_ms": 1000 * answer.queue_seconds,
        "model_ms": 1000 * answer.model_seconds,
        "total_ms": 1000 * answer.total_seconds,
        "batch": answer.batch,
        "image": f"data:image/jpeg;base64,{picture}",
    }


def _quantiles(seconds: list[float]) -> dict[str, float] | None:
    if not seconds:
        return None
    values = 1000 * np.quantile(seconds, [0.5, 0.95, 0.99])
    return dict(zip(("p50", "p95", "p99"), values.tolist(), strict=True))
