"""What the server remembers of one robot between two requests: its frames, its last answer, what its guard knows."""

import asyncio
import collections
import dataclasses
import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from rt2_jax.actions.embodiment import Embodiment
from rt2_jax.actions.envelope import Envelope, Guard, Guarded
from rt2_jax.serve.engine import Acted, Serving
from rt2_jax.serve.observation import MODES, History, Observation, Row, check_instruction, moment, state_of
from rt2_jax.serve.refusal import Refusal

_numbers = itertools.count(1)


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a robot is told to do.

    Attributes:
        actions: float32[k, width] in physical units: now, and in the k - 1 steps that follow; inside the envelope.
        bins: int32[k, width], as decoded.
        text, logprob, confidence: see `Acted`.
        embodiment: whose action it is.
        limited, held: what the envelope changed; see `actions.envelope.Guarded`.
        queue_seconds, model_seconds, total_seconds: waited for a batch; the batch ran; from arrival to here.
        batch: requests in the batch; 0 for an action of an earlier answer's chunk.
    """

    actions: np.ndarray
    bins: np.ndarray
    text: str
    logprob: float
    confidence: np.ndarray | None
    embodiment: Embodiment
    limited: tuple[str, ...] = ()
    held: bool = False
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
        self._guard: tuple[tuple[Envelope, str], Guard] | None = None

    def reset(self) -> None:
        """A new episode: what was seen and decided is forgotten."""
        self._history = self._guard = None
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
        frames, told = history.add(shown), observation.instruction
        return Row(frames, told, robot.name, observation.mode, state, observation.carried_out)

    def answer(self, serving: Serving, row: Row, acted: Acted) -> Answer:
        """What the robot is told of what the policy decided: the whole chunk, inside its envelope."""
        guard = self._guard_of(serving, row)
        answer = _answer(serving, row, acted)
        if guard is None:
            return answer
        return _guarded(answer, guard.apply_chunk(acted.chunk, row.state, row.carried_out))

    def first_of_chunk(self, serving: Serving, row: Row, acted: Acted, most: int | None) -> Answer:
        """As `answer`, the first action alone; of those that follow, up to `most` in all are kept."""
        steps = len(acted.chunk) if most is None else min(most, len(acted.chunk))
        whole = _answer(serving, row, acted)
        self._rest = collections.deque(_step(whole, step) for step in range(steps))
        first = self.next_of_chunk(serving, row)
        assert first is not None
        return first

    def next_of_chunk(self, serving: Serving, row: Row) -> Answer | None:
        """The next action that was decided already, inside the envelope as it is now; None where there is none."""
        if not self._rest:
            return None
        answer = self._rest.popleft()
        if answer.embodiment.sha256 != serving.embodiment(row.embodiment).sha256:
            self._rest.clear()
            return None
        guard = self._guard_of(serving, row)
        return answer if guard is None else _guarded(answer, (guard.apply(answer.actions[0], row.state),))

    def _guard_of(self, serving: Serving, row: Row) -> Guard | None:
        """What keeps this robot inside its envelope; another envelope or robot gets another guard."""
        envelope, robot = serving.envelopes.get(row.embodiment), serving.embodiment(row.embodiment)
        if envelope is None:
            self._guard = None
        elif self._guard is None or self._guard[0] != (envelope, robot.sha256):
            self._guard = (envelope, robot.sha256), Guard(envelope, robot.space, robot.state_names)
        return None if self._guard is None else self._guard[1]


def _answer(serving: Serving, row: Row, acted: Acted) -> Answer:
    return Answer(
        actions=acted.chunk,
        bins=acted.bins,
        text=acted.text,
        logprob=acted.logprob,
        confidence=acted.confidence,
        embodiment=serving.embodiment(row.embodiment),
    )


def _step(answer: Answer, step: int) -> Answer:
    """One action of a chunk."""
    here = slice(step, step + 1)
    confidence = None if answer.confidence is None else answer.confidence[here]
    return dataclasses.replace(answer, actions=answer.actions[here], bins=answer.bins[here], confidence=confidence)


def _guarded(answer: Answer, guarded: Sequence[Guarded]) -> Answer:
    limited = dict.fromkeys(name for each in guarded for name in each.limited)
    return dataclasses.replace(
        answer,
        actions=np.stack([each.action for each in guarded]),
        limited=tuple(limited),
        held=any(each.held for each in guarded),
    )


def modes_served(serving: Serving) -> list[str]:
    """Modes in the order that people read them in."""
    return [mode for mode in MODES if mode in serving.modes]
