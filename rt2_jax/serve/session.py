"""What the server remembers of one robot between two requests: its frames, and the rest of its last answer."""

import asyncio
import collections
import dataclasses
import itertools
from collections.abc import Mapping

import numpy as np

from rt2_jax.actions.embodiment import Embodiment
from rt2_jax.serve.engine import Acted, Serving
from rt2_jax.serve.observation import MODES, History, Observation, Row, check_instruction, moment, state_of
from rt2_jax.serve.refusal import Refusal

_numbers = itertools.count(1)


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a robot is told to do.

    Attributes:
        actions: float32[k, width] in physical units: now, and in the k - 1 steps that follow.
        bins: int32[k, width], as decoded.
        text, logprob, confidence: see `Acted`.
        embodiment: whose action it is.
        queue_seconds, model_seconds, total_seconds: waited for a batch; the batch ran; from arrival to here.
        batch: requests in the batch; 0 for an action of an earlier answer's chunk.
    """

    actions: np.ndarray
    bins: np.ndarray
    text: str
    logprob: float
    confidence: np.ndarray | None
    embodiment: Embodiment
    queue_seconds: float = 0.0
    model_seconds: float = 0.0
    total_seconds: float = 0.0
    batch: int = 0


class Session:
    """One robot's memory. `see` runs in a thread for decoding, one call at a time; the rest in the event loop.

    Args:
        dialect: what the client speaks, for logs and metrics.
        client: whose it is, for logs: an API key's name or an address.
        default_embodiment: whose action is wanted where an observation names nobody; None for the only one there is.
        aliases: client's name of a camera -> the card's name.
        max_pixels: of one image.

    Attributes:
        number: of the session, for logs.
        lane: of the batcher, in which its requests wait.
        turn: held while an observation is read, so that frames keep their order.
    """

    def __init__(
        self,
        dialect: str,
        client: str,
        default_embodiment: str | None,
        aliases: Mapping[str, str],
        max_pixels: int,
    ):
        self.dialect, self.client, self.number = dialect, client, next(_numbers)
        self.turn = asyncio.Lock()
        self.lane: object = self
        self._default, self._aliases, self._max_pixels = default_embodiment, aliases, max_pixels
        self._history: History | None = None
        self._told: tuple[int, str, str, str] | None = None
        self._rest: collections.deque[Answer] = collections.deque()

    def reset(self) -> None:
        """A new episode: what was seen and decided is forgotten."""
        self._history = None
        self._rest.clear()

    def see(self, serving: Serving, observation: Observation) -> Row:
        """The observation and those before it, as a row for the policy of `serving`.

        Raises:
            Refusal, UserError, WireError: the observation is not one of this embodiment's; nothing is remembered of it.
        """
        if observation.mode not in serving.modes:
            raise Refusal(
                "invalid", f"mode {str(observation.mode)[:60]!r} is not served; choose of: {', '.join(serving.modes)}"
            )
        policy = serving.policy
        robot = serving.embodiment(observation.embodiment or self._default)
        state = state_of(observation, robot)
        told = (serving.number, robot.name, observation.mode, observation.instruction)
        if state is not None or told != self._told:  # an instruction stays for an episode, a state changes the prompt
            check_instruction(policy, robot, observation.instruction, observation.mode, state)
            self._told = told
        shown = moment(observation, robot, policy.image_size, self._aliases, self._max_pixels)
        history = self._history
        # Another bundle that shows its model the same goes on with the same episode.
        if history is None or (history.robot.sha256, history.image_size) != (robot.sha256, policy.image_size):
            self.reset()
            self._history = history = History(robot, policy.image_size)
        return Row(history.add(shown), observation.instruction, robot.name, observation.mode, state)

    def answer(self, serving: Serving, row: Row, acted: Acted) -> Answer:
        """What the robot is told of what the policy decided."""
        return Answer(
            actions=acted.chunk,
            bins=acted.bins,
            text=acted.text,
            logprob=acted.logprob,
            confidence=acted.confidence,
            embodiment=serving.embodiment(row.embodiment),
        )

    def keep_rest(self, answer: Answer, most: int | None) -> Answer:
        """The first action of an answer; of those that follow, up to `most` in all are kept for `next_of_chunk`."""
        singles = [
            dataclasses.replace(
                answer,
                actions=answer.actions[step : step + 1],
                bins=answer.bins[step : step + 1],
                confidence=None if answer.confidence is None else answer.confidence[step : step + 1],
                batch=0 if step else answer.batch,
            )
            for step in range(len(answer.actions) if most is None else min(most, len(answer.actions)))
        ]
        self._rest = collections.deque(singles[1:])
        return singles[0]

    def next_of_chunk(self) -> Answer | None:
        """The next action that was decided already, or None."""
        return self._rest.popleft() if self._rest else None


def modes_served(serving: Serving) -> list[str]:
    """Modes in the order that people read them in."""
    return [mode for mode in MODES if mode in serving.modes]
