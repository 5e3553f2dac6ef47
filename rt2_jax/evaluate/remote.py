"""A policy behind `rt2 serve` in the place of one in this process: every row of the batch is a robot of its own to it.

Each row has a connection, so that the server keeps its history, and all of them ask at once, so that the server makes a
batch of them.
"""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np

from rt2_jax.errors import UserError
from rt2_jax.evaluate.env import SEATS
from rt2_jax.serve.answer import Answer
from rt2_jax.serve.client import PolicyClient
from rt2_jax.serve.failures import (
    ConnectionLost,
    RateLimited,
    ServerBusy,
    ServerDraining,
    ServingError,
    StaleObservation,
)
from rt2_jax.serve.greeting import ServedRobot

T = TypeVar("T")

# Seconds in which a server answers, or comes back; and between two attempts where it says that it cannot now.
PATIENCE, PAUSE = 30.0, 0.2
# The observation is as good as before: the world stands still until it has its action.
_TRY_AGAIN = (ConnectionLost, RateLimited, ServerBusy, ServerDraining, StaleObservation)


@dataclasses.dataclass(frozen=True)
class RemoteOutput:
    """As `policy.policy.PolicyOutput`, as far as the closed loop reads it."""

    actions: np.ndarray
    bins: np.ndarray
    text: list[str]


class RemotePolicy:
    """Acts through a server. Close it when done.

    Args:
        url, api_key: as `PolicyClient`.
        seats: rows of a batch, at most.

    Attributes:
        greeting: what the server said of itself.

    Raises:
        UserError: the server cannot be reached or refuses, or does not say what an evaluation must know.
    """

    def __init__(self, url: str, api_key: str | None = None, seats: int = SEATS):
        self._connect = lambda: PolicyClient(url, api_key, PATIENCE)
        self._clients = [_told(self._connect)]
        self._threads = ThreadPoolExecutor(seats, "rt2-robot")
        self._robot: ServedRobot | None = None
        self.url, self.greeting = self._clients[0].url, self._clients[0].greeting
        if self.greeting.image_size is None:
            self.close()
            raise UserError(f"{self.url} does not say its image_size; serve it by this release or a later one")

    @property
    def image_size(self) -> int:
        """Side in pixels of the frames that the model sees."""
        assert self.greeting.image_size is not None
        return self.greeting.image_size

    @property
    def robots(self) -> Mapping[str, ServedRobot]:
        """Those that the server acts for, by name."""
        return self.greeting.robots

    def acting_as(self, name: str | None) -> "RemotePolicy":
        """This policy, which acts for the robot `name` from here on; None is the only one there is.

        Raises:
            UserError: an unknown name, or none where there are several.
        """
        self._robot = self.greeting.robot(name)
        return self

    def embodiment(self) -> ServedRobot:
        """Whose actions `act` gives; errors as `acting_as`."""
        return self.acting_as(None).embodiment() if self._robot is None else self._robot

    def begin(self, row: int) -> None:
        """A new episode in that row of the batch.

        Raises:
            UserError: the server cannot be reached.
        """
        while len(self._clients) <= row:
            self._clients.append(_told(self._connect))
        _told(self._clients[row].reset)

    def act(
        self, images: np.ndarray, instructions: Sequence[str], mode: str = "action", *, states: np.ndarray | None = None
    ) -> RemoteOutput:
        """As `Policy.act`; of the frames of each row only the newest moment is sent, for the server has the others.

        Raises:
            UserError: the server refuses, does not come back in time, or has lost the moments before.
        """
        cameras = self.embodiment().cameras
        while len(self._clients) < len(images):
            self._clients.append(_told(self._connect))

        def ask(row: int) -> Answer:
            seen = dict(zip(cameras, images[row, -len(cameras) :], strict=True))
            return self._ask(self._clients[row], seen, instructions[row], mode, None if states is None else states[row])

        answers = list(self._threads.map(ask, range(len(images))))
        return RemoteOutput(
            actions=np.stack([answer.actions[0] for answer in answers]),
            bins=np.stack([answer.bins[0] for answer in answers]),
            text=[answer.text for answer in answers],
        )

    def limited(self) -> Mapping[str, int]:
        """What the guards of this side did, over all rows; see `Guard.counts`. Empty without an envelope."""
        robot, total = self.embodiment(), {}
        for client in self._clients:
            guard = client.guards.get(robot.name)
            for what, count in guard.counts.items() if guard else ():
                total[what] = total.get(what, 0) + count
        return total

    def close(self) -> None:
        """Leaves the server."""
        for client in self._clients:
            client.close()
        self._threads.shutdown()

    def __enter__(self) -> "RemotePolicy":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(
        self, client: PolicyClient, seen: Mapping[str, np.ndarray], told: str, mode: str, state: np.ndarray | None
    ) -> Answer:
        robot, gives_up = self.embodiment(), time.monotonic() + PATIENCE
        while True:
            try:
                # Of a chunk the closed loop carries out the first action.
                return client.act(seen, told, state=state, embodiment=robot.name, mode=mode, carried_out=1)
            except _TRY_AGAIN as error:
                # A history would hold this moment twice, or be cut.
                if robot.history > 1 or time.monotonic() > gives_up:
                    raise UserError(f"{self.url}: {error}") from error
                time.sleep(PAUSE)  # a full or starting server is not pressed; the world stands still meanwhile
            except ServingError as error:
                raise UserError(f"{self.url}: {error}") from error


def _told(call: Callable[[], T]) -> T:
    """What `call` gives; a server's refusal becomes one line for the user."""
    try:
        return call()
    except ServingError as error:
        raise UserError(str(error)) from error
