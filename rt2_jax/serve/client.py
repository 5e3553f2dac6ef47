"""A robot's side of `rt2 serve`: `PolicyClient` asks for actions, `ChunkBroker` plays those of a chunk one by one.

Needs numpy, msgpack and websockets alone, so that a robot's computer needs no model stack::

    with PolicyClient("ws://server:8000") as client:
        client.reset()
        answer = client.act({"image": frame}, "pick up the red cube")
        robot.move(answer.actions[0])
"""

import dataclasses
import math
import ssl
import threading
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any

import numpy as np

from rt2_jax.actions.envelope import Guard
from rt2_jax.errors import UserError
from rt2_jax.serve.answer import Answer, read_answer
from rt2_jax.serve.connection import Connection
from rt2_jax.serve.failures import ConnectionLost, ProtocolError, refusal
from rt2_jax.serve.greeting import Greeting, ServedRobot

Image = np.ndarray | bytes


class PolicyClient:
    """One robot's connection to a server.

    A server that restarts is waited for, with growing pauses, by the call that needs it. An observation is sent again
    once at most, only while it is younger than its deadline, and with what is left of that; else the caller is told.
    Calls from several threads wait for each other, but there is one episode and one history: give each robot a client
    of its own.

    Args:
        url: ``ws://host:port`` or ``wss://``, ``http`` and ``https`` meaning the same; the path is the server's own
            where none is given.
        api_key: sent as ``Authorization: Api-Key KEY``.
        timeout: seconds for connecting, attempts and pauses together, and for an answer.
        embodiment: whose actions are asked for where a call names none; needed where the server knows several.
        tls: for a certificate that the system does not trust, or one of the client's own.

    Attributes:
        greeting: what the server said of itself, when it was connected to last.
        guards: by embodiment, the guards of those that have an envelope; `Guard.counts` says what they did.

    Raises:
        UserError: no such URL or embodiment.
        ServingError: the server cannot be reached, or refuses; see `serve.failures`.
    """

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        timeout: float = 10.0,
        *,
        embodiment: str | None = None,
        tls: ssl.SSLContext | None = None,
    ):
        if not (timeout > 0 and math.isfinite(timeout)):
            raise UserError(f"timeout is {timeout}; give seconds above 0")
        self.guards: dict[str, Guard] = {}
        self._connection = Connection(url, api_key, tls)
        self._timeout, self._embodiment = timeout, embodiment
        self._lock = threading.RLock()
        self._asked = 0
        self._told = False  # whether the connection before this one was shown frames of the episode
        self.greeting: Greeting = self._connection.open(time.monotonic() + timeout)
        self._renew_guards({})
        try:
            if embodiment is not None:
                self.greeting.robot(embodiment)
        except UserError:
            self.close()
            raise

    @property
    def url(self) -> str:
        """Of the server."""
        return self._connection.url

    def __enter__(self) -> "PolicyClient":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Leaves the server for good; a thread that waits for an answer gets `ConnectionLost`."""
        self._connection.close()

    def reset(self) -> None:
        """A new episode: the server forgets the frames of the last, and the guards the last action.

        Raises:
            ServingError: as the constructor, where the connection was lost.
        """
        with self._lock:
            for guard in self.guards.values():
                guard.reset()
            self._told = False
            if self._connection.is_open:
                try:
                    self._connection.send({"type": "reset"})
                    return
                except ConnectionLost:
                    pass  # with what there was to forget
            self._reconnect(time.monotonic() + self._timeout)

    def act(
        self,
        images: Mapping[str, Image],
        instruction: str,
        *,
        state: np.ndarray | None = None,
        embodiment: str | None = None,
        mode: str | None = None,
        deadline_ms: float | None = None,
        carried_out: int | None = None,
    ) -> Answer:
        """What to do now.

        Args:
            images: camera -> uint8[H, W, 3], or the bytes of a PNG or JPEG file; every camera of the robot.
            instruction: what the robot is told.
            state: float[S], in the units of `ServedRobot.state_units`; for a robot that has a state, and no other.
            embodiment: whose action is wanted, where it is not the client's.
            mode: "action", or "plan" to have the policy state a plan first; None leaves it to the server.
            deadline_ms: how old the observation may get, counted from this call, in milliseconds; an answer later than
                that is not waited for. None: as long as the server allows, and the client's timeout.
            carried_out: how many of the last answer's actions were carried out, for the guards; None is all of them.

        Raises:
            UserError: images, state or numbers of a wrong type, or an embodiment that the server does not know.
            ServingError: the server refused (a class for each of its codes), is gone (`ConnectionLost`), or did not
                answer in time (`NoAnswer`); see `serve.failures`.
        """
        called = time.monotonic()
        if deadline_ms is not None and not (deadline_ms > 0 and math.isfinite(deadline_ms)):
            raise UserError(f"deadline_ms is {deadline_ms}; give milliseconds above 0")
        with self._lock:
            robot = self.greeting.robot(self._embodiment if embodiment is None else embodiment)
            fields: dict[str, Any] = {
                "type": "observation",
                "instruction": instruction,
                "images": _frames(images, robot),
                "embodiment": robot.name,
            }
            if mode is not None:
                fields["mode"] = mode
            if state is not None:
                fields["state"] = _state(state, robot)
            if carried_out is not None:
                fields["carried_out"] = carried_out
            message, times = self._ask(fields, called, deadline_ms, robot)
            answer = read_answer(message, robot)
            guard = self.guards.get(robot.name)
            if guard is not None:
                answer = answer.guarded(guard.apply_chunk(answer.actions, state, carried_out))
            elif not np.isfinite(answer.actions).all():
                raise ProtocolError(f"{self.url} sent an action that is not finite; it is not to be carried out")
            return dataclasses.replace(answer, reconnected=times > 1)

    def _ask(
        self, fields: dict[str, Any], called: float, deadline_ms: float | None, robot: ServedRobot
    ) -> tuple[dict[str, Any], int]:
        """The server's answer, and how many times the observation was sent for it."""
        ends = called + (self._timeout if deadline_ms is None else deadline_ms / 1000)
        times = 0
        while True:
            anew = not self._connection.is_open
            if anew:
                self._reconnect(ends)
                self._check_still(robot)
            fresh = (self.greeting.deadline_ms if deadline_ms is None else deadline_ms) / 1000
            left = called + fresh - time.monotonic()
            if left <= 0:
                raise ConnectionLost(
                    f"the connection to {self.url} is back {time.monotonic() - called:.2f} s after the observation, "
                    f"which may be {fresh:g} s old; take a new one"
                )
            self._asked += 1
            asked = fields | {"id": self._asked}
            if anew or deadline_ms is not None:
                asked["deadline_ms"] = left * 1000
            try:
                times += 1
                self._connection.send(asked)
                return self._receive(ends), times
            except ConnectionLost:
                if robot.history > 1:
                    self._told = False
                    raise  # what the server saw before is lost with it, which the caller has to know
                # Once more and no more: it may be this observation that the server breaks at.
                if times > 1 or self._connection.is_closed or time.monotonic() >= called + fresh:
                    raise

    def _receive(self, ends: float) -> dict[str, Any]:
        """The answer to what was asked last; answers to earlier questions, given up by now, are dropped."""
        while True:
            message = self._connection.receive(ends - time.monotonic())
            number = message.get("id")
            if isinstance(number, int) and number < self._asked:
                continue
            if message.get("type") == "error":
                failure = refusal(str(message.get("code")), str(message.get("message")))
                if failure.code == "draining":
                    self._connection.leave()
                    self._told = True
                raise failure
            if message.get("type") != "action" or number != self._asked:
                self._connection.leave()
                raise ProtocolError(
                    f"{self.url} sent {str(message.get('type'))[:20]!r} where an action was due; update one of the two"
                )
            return message

    def _reconnect(self, ends: float) -> None:
        before = self.greeting.robots
        self.greeting = self._connection.open(ends)
        self._renew_guards(before)

    def _renew_guards(self, before: Mapping[str, ServedRobot]) -> None:
        """A guard for each robot that has an envelope; the one it has, where neither has changed."""
        for name, robot in self.greeting.robots.items():
            known = before.get(name)
            if robot.envelope is None:
                self.guards.pop(name, None)
            elif known is None or known.envelope != robot.envelope or not known.moves_as(robot):
                self.guards[name] = Guard(robot.envelope, robot.space, robot.state_names)

    def _check_still(self, robot: ServedRobot) -> None:
        """After another connection: the robot is the same one, and its history is not cut in silence."""
        found = self.greeting.robots.get(robot.name)
        if found is None or not found.moves_as(robot):
            raise ProtocolError(
                f"{self.url} now serves bundle {self.greeting.bundle[:12]}, which knows another {robot.name}, or none; "
                "make a new client"
            )
        if self._told and robot.history > 1:
            self._told = False
            raise ConnectionLost(
                f"the connection to {self.url} is a new one, and the server has forgotten the moments before, of which "
                f"the model sees {robot.history}; call reset, or act again to go on without them"
            )


class ChunkBroker:
    """Plays the actions of an answer one a call, and asks anew when so many are played.

    The frames of the calls between are not sent: a model with a history sees the moments at which it was asked.

    Args:
        client: whose answers are played.
        play: actions of each chunk to carry out before the next is asked for; None is all of them.

    Attributes:
        answer: the last one, or None before an episode's first.

    Raises:
        UserError: `play` is less than 1.
    """

    def __init__(self, client: PolicyClient, play: int | None = None):
        if play is not None and play < 1:
            raise UserError(f"play is {play}; carry out at least 1 action of a chunk")
        self._client, self._play = client, play
        self.answer: Answer | None = None
        self._played = 0
        self._instruction: str | None = None

    def reset(self) -> None:
        """A new episode; what is left of the chunk is dropped. Errors as `PolicyClient.reset`."""
        self.answer, self._played = None, 0
        self._client.reset()

    def act(self, images: Mapping[str, Image], instruction: str, **arguments: Any) -> np.ndarray:
        """float32[width]: what to do now; arguments and errors as `PolicyClient.act`.

        Another instruction than the last drops what is left of the chunk. After an error the next call asks.

        Raises:
            UserError: a chunk has fewer actions than are to be played.
        """
        if self.answer is None or instruction != self._instruction or self._played >= self._count(self.answer):
            carried_out = None if self.answer is None else self._played
            answer = self._client.act(images, instruction, carried_out=carried_out, **arguments)
            self._count(answer)
            self.answer, self._played, self._instruction = answer, 0, instruction
        self._played += 1
        return self.answer.actions[self._played - 1]

    def _count(self, answer: Answer) -> int:
        most = len(answer.actions)
        if self._play is not None and self._play > most:
            raise UserError(f"play is {self._play}, a chunk has {most} actions; play at most as many")
        return most if self._play is None else self._play


def _frames(images: Mapping[str, Image], robot: ServedRobot) -> dict[str, Any]:
    if not isinstance(images, Mapping):
        raise UserError(f"images: a {type(images).__name__}; give frames by camera ({', '.join(robot.cameras)})")
    frames: dict[str, Any] = {}
    for camera, image in images.items():
        if isinstance(image, bytes):
            frames[camera] = {"encoded": image}
        elif isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3:
            frames[camera] = image
        else:
            found = f"{image.dtype}{list(image.shape)}" if isinstance(image, np.ndarray) else type(image).__name__
            raise UserError(f"camera {camera!r}: {found}; give uint8[H, W, 3], or the bytes of a PNG or JPEG file")
    return frames


def _state(state: Any, robot: ServedRobot) -> np.ndarray:
    numbers = np.asarray(state)
    if numbers.dtype.kind not in "iuf" or numbers.shape != (len(robot.state_names),):
        raise UserError(
            f"state: {numbers.dtype}{list(numbers.shape)}, {robot.name} has {len(robot.state_names)} numbers "
            f"({', '.join(robot.state_names) or 'none'}); give those"
        )
    return numbers.astype(np.float32)
