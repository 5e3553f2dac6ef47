"""From an observation to an answer: what every dialect calls, and where every request is counted."""

import asyncio
import collections
import dataclasses
from collections.abc import Mapping

from rt2_jax.serve.engine import Engine, Serving
from rt2_jax.serve.limits import Limits, Rate
from rt2_jax.serve.metrics import Metrics
from rt2_jax.serve.observation import Observation, Row
from rt2_jax.serve.recent import Recent
from rt2_jax.serve.refusal import Refusal, draining, refusal_of
from rt2_jax.serve.session import Answer, Session
from rt2_jax.serve.structured_log import tell, tell_fault


@dataclasses.dataclass(frozen=True)
class Asked:
    """A request that was read, and waits to be answered."""

    session: Session
    serving: Serving
    row: Row
    arrived: float
    deadline: float
    ready: Answer | None = None


class Service:
    """The engine with limits, sessions and counts around it. Made inside a running event loop.

    Args:
        engine: what acts.
        limits: see `Limits`.
        embodiment: whose action is wanted where a client names nobody; None for the only one there is.
        aliases: client's name of a camera -> the card's name.
        chunk_steps: of an answer's chunk, how many actions are carried out before the model is asked again, where a
            client takes one at a time; None for all.
    """

    def __init__(
        self,
        engine: Engine,
        limits: Limits,
        metrics: Metrics,
        recent: Recent,
        *,
        embodiment: str | None = None,
        aliases: Mapping[str, str] | None = None,
        chunk_steps: int | None = None,
    ):
        self.engine, self.limits, self.metrics, self.recent = engine, limits, metrics, recent
        self.embodiment, self._aliases, self._chunk_steps = embodiment, dict(aliases or {}), chunk_steps
        self.draining = False
        self._key_rates: collections.OrderedDict[str, Rate] = collections.OrderedDict()

    def session(self, dialect: str, client: str) -> Session:
        """A new robot's memory."""
        return Session(dialect, client, self.embodiment, self._aliases, self.limits.max_pixels)

    def connection_rate(self) -> Rate | None:
        """What counts one connection's requests."""
        limits = self.limits
        return None if limits.rate is None else Rate(limits.rate, limits.burst, "one connection")

    def admit(self, client: str, rate: Rate | None) -> None:
        """Counts a request of a connection and of its client, before any work for it.

        Raises:
            Refusal: draining, or over a rate.
        """
        if self.draining:
            raise draining()
        now, limits = asyncio.get_running_loop().time(), self.limits
        if rate is not None:
            rate.take(now)
        if limits.key_rate is not None:
            known = self._key_rates
            counted = known.pop(client, None) or Rate(limits.key_rate, limits.key_burst, "this client")
            known[client] = counted
            if len(known) > limits.max_connections:  # of clients without keys there may be any number
                known.popitem(last=False)
            counted.take(now)

    async def read(self, session: Session, observation: Observation, arrived: float, *, single: bool = False) -> Asked:
        """Adds an observation to a session and makes a request of it. Observations of a session are read in turn.

        Args:
            session: whose it is.
            observation: what was seen.
            arrived: when, in the loop's time.
            single: the client takes one action at a time; what is left of an earlier chunk answers at once.

        Raises:
            Refusal, UserError, WireError: it cannot be answered.
        """
        loop, serving = asyncio.get_running_loop(), self.engine.serving
        allowed = self.limits.deadline if observation.deadline is None else observation.deadline
        async with session.turn:
            row = await self.engine.aside(session.see, serving, observation)
            ready = session.next_of_chunk(serving, row) if single else None
        self.metrics.stage("decode", loop.time() - arrived)
        return Asked(session, serving, row, arrived, arrived + allowed, ready)

    async def answer(self, asked: Asked, *, single: bool = False) -> Answer:
        """The answer to what `read` made; `single` as there.

        Raises:
            Refusal: see `Batcher.submit`.
        """
        loop, session = asyncio.get_running_loop(), asked.session
        if asked.ready is not None:
            answer = dataclasses.replace(asked.ready, total_seconds=loop.time() - asked.arrived)
        else:
            served = await self.engine.act(session.lane, asked.serving, asked.row, asked.deadline)
            told = asked.serving, asked.row, served.result
            answer = session.first_of_chunk(*told, self._chunk_steps) if single else session.answer(*told)
            answer = dataclasses.replace(
                answer,
                queue_seconds=served.queue_seconds,
                model_seconds=served.run_seconds,
                total_seconds=loop.time() - asked.arrived,
                batch=served.batch,
            )
        self.metrics.answered(session.dialect, asked.row.mode, answer)
        self.recent.answered(session, asked.row, answer)
        return answer

    async def act(self, session: Session, observation: Observation, arrived: float, *, single: bool = False) -> Answer:
        """`read` and `answer` in one."""
        return await self.answer(await self.read(session, observation, arrived, single=single), single=single)

    def refused(self, dialect: str, client: str, error: BaseException) -> Refusal:
        """What a client is sent for an error; it is counted, and logged where it is ours."""
        refusal = refusal_of(error)
        if refusal is not error and refusal.code == "internal":
            tell_fault("request_failed", error, dialect=dialect, client=client)
        self.metrics.refused(dialect, refusal.code)
        self.recent.refused(refusal.code)
        if refusal.code == "invalid":
            tell("refused", level="debug", dialect=dialect, client=client, code=refusal.code, message=refusal.message)
        return refusal
