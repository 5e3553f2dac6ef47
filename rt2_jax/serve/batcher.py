"""Gathers the requests of many robots into batches, fairly and in time: pure asyncio, it knows nothing of models.

Requests wait in lanes, one a client. A batch takes one request of each lane in turn, so that a client that sends much
waits behind itself alone; it holds requests of one group, and the lane that waited longest says of which. One batch
runs at a time, and while it runs the next one gathers. A request is answered before its deadline or refused as stale
at it, whether it waits or its batch runs.
"""

import asyncio
import collections
import contextlib
import dataclasses
import itertools
from collections.abc import Awaitable, Callable, Hashable, Iterator, Sequence
from typing import Any, Generic, TypeVar

from rt2_jax.errors import UserError
from rt2_jax.serve.refusal import Refusal, internal

Payload = TypeVar("Payload")
Result = TypeVar("Result")

# Batches of each size whose least duration says how long the next one takes; none older than this many seconds.
_REMEMBERED, _REMEMBERED_SECONDS = 8, 10.0
# Seconds, at least, in which a robot that is told that its observation is stale sends a fresh one.
_FRESH_SECONDS = 0.005
# Seconds for which a lane counts as one whose next request may be waited for.
_ACTIVE_SECONDS = 1.0


@dataclasses.dataclass(frozen=True)
class BatcherLimits:
    """How much waits, and how long.

    Attributes:
        max_batch: requests in one batch; a power of two, since a policy pads to one.
        max_queue: requests that wait, of all lanes together; more are refused as busy.
        max_lane: requests of one lane that wait or run; more are refused as busy.
        window: seconds that a batch waits for the other lanes that are active; a lane that is alone never waits.
    """

    max_batch: int = 16
    max_queue: int = 256
    max_lane: int = 8
    window: float = 0.003

    def __post_init__(self) -> None:
        if self.max_batch < 1 or self.max_batch & (self.max_batch - 1):
            raise UserError(f"the largest batch is {self.max_batch}; choose a power of two: 1, 2, 4, 8, 16, ...")


@dataclasses.dataclass(frozen=True)
class Served(Generic[Result]):
    """A result, and the seconds that its request waited and that its batch of `batch` requests ran."""

    result: Result
    queue_seconds: float
    run_seconds: float
    batch: int


@dataclasses.dataclass(eq=False)
class _Request(Generic[Payload, Result]):
    lane: Hashable
    group: Hashable
    payload: Payload
    entered: float
    deadline: float
    answer: "asyncio.Future[Served[Result]]"
    timer: asyncio.TimerHandle | None = None


class Batcher(Generic[Payload, Result]):
    """Runs batches one after the other for as long as the task of `serve` lives. Made inside a running event loop.

    Args:
        run: `(group, payloads) -> results`, one each in that order; called for one batch at a time.
        limits: see `BatcherLimits`.
        on_failure: called with what `run` raised; the batch's requests are refused as internal.
    """

    def __init__(
        self,
        run: Callable[[Any, list[Payload]], Awaitable[Sequence[Result]]],
        limits: BatcherLimits,
        on_failure: Callable[[Exception], None],
    ):
        self._run = run
        self._limits = limits
        self._on_failure = on_failure
        self._lanes: collections.OrderedDict[Hashable, collections.deque[_Request[Payload, Result]]] = (
            collections.OrderedDict()
        )
        self._waiting = 0
        self._running = 0
        self._in_lane: collections.Counter[Hashable] = collections.Counter()  # waiting or running
        self._seen: dict[Hashable, float] = {}
        self._changed = asyncio.Event()
        self._durations = _Durations()

    @property
    def waiting(self) -> int:
        """Requests that wait for a batch."""
        return self._waiting

    @property
    def running(self) -> int:
        """Requests in the batch that runs."""
        return self._running

    async def submit(self, lane: Hashable, group: Hashable, payload: Payload, deadline: float) -> Served[Result]:
        """The result for one request.

        Args:
            lane: whose request it is; its requests are answered in their order.
            group: requests of equal groups may share a batch; a plain value, for it is remembered for a while.
            payload: what `run` is given.
            deadline: in the loop's time; at it the request is refused.

        Raises:
            Refusal: busy, stale, or internal where `run` failed.
        """
        request = self._enter(lane, group, payload, deadline)
        try:
            return await request.answer
        finally:  # of a client that has gone as well
            self._leave(request)

    def _enter(self, lane: Hashable, group: Hashable, payload: Payload, deadline: float) -> _Request[Payload, Result]:
        loop, limits = asyncio.get_running_loop(), self._limits
        now = loop.time()
        if self._waiting >= limits.max_queue:
            raise Refusal("busy", f"{self._waiting} requests wait, at most {limits.max_queue}; try again later")
        if self._in_lane[lane] >= limits.max_lane:
            raise Refusal(
                "busy",
                f"{self._in_lane[lane]} requests of this client wait, at most {limits.max_lane}; await their answers",
            )
        request: _Request[Payload, Result] = _Request(lane, group, payload, now, deadline, loop.create_future())
        request.timer = loop.call_at(deadline, _expire, request)
        self._lanes.setdefault(lane, collections.deque()).append(request)
        self._in_lane[lane] += 1
        self._seen[lane] = now
        self._waiting += 1
        self._changed.set()
        return request

    def _leave(self, request: _Request[Payload, Result]) -> None:
        """Once for each request, whatever became of it."""
        if request.timer is not None:
            request.timer.cancel()
        if request in self._lanes.get(request.lane, ()):
            self._take_out(request)
        self._in_lane[request.lane] -= 1
        if not self._in_lane[request.lane]:
            del self._in_lane[request.lane]

    def _take_out(self, request: _Request[Payload, Result]) -> None:
        lane = self._lanes[request.lane]
        lane.remove(request)
        self._waiting -= 1
        if not lane:
            del self._lanes[request.lane]

    async def serve(self) -> None:
        """Runs batches until it is cancelled."""
        while True:
            await self._gather()
            await self._refuse_late()
            batch = self._take()
            if batch:
                await self._serve_batch(batch)

    async def _serve_batch(self, batch: list[_Request[Payload, Result]]) -> None:
        loop = asyncio.get_running_loop()
        self._running, started = len(batch), loop.time()
        try:
            results = await self._run(batch[0].group, [request.payload for request in batch])
            if len(results) != len(batch):
                raise RuntimeError(f"{len(results)} results for a batch of {len(batch)} requests")
        except Exception as error:
            self._on_failure(error)
            for request in batch:
                _answer(request, internal())
        else:
            now = loop.time()
            self._durations.add(batch[0].group, len(batch), now, now - started)
            for request, result in zip(batch, results, strict=True):
                _answer(request, Served(result, started - request.entered, now - started, len(batch)))
                self._seen[request.lane] = now
        finally:
            self._running = 0

    async def _gather(self) -> None:
        """Waits for a request, and a window long for those of the other lanes that lately had one."""
        while not self._waiting:
            self._changed.clear()
            await self._changed.wait()
        loop = asyncio.get_running_loop()
        if self._limits.window <= 0:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._limits.window):
                while 0 < self._waiting < self._limits.max_batch and len(self._lanes) < self._active(loop.time()):
                    self._changed.clear()
                    await self._changed.wait()

    def _active(self, now: float) -> int:
        """Lanes that had a request lately."""
        for lane in [lane for lane, seen in self._seen.items() if now - seen > _ACTIVE_SECONDS]:
            del self._seen[lane]
        return len(self._seen)

    async def _refuse_late(self) -> None:
        """Refuses requests that would be late even if served alone, so that they are not in the others' way.

        A robot sends a fresh observation at once; where the batch has room for it, it is waited for a moment.
        """
        now = asyncio.get_running_loop().time()
        waiting = list(self._in_turn())
        late = [request for request in waiting if not self._in_time(request, 1, now)]
        if late and len(late) == len(waiting):
            # One is tried all the same, so that it is learnt whether a batch still takes as long as it did.
            late.remove(max(late, key=lambda request: request.deadline))
        for request in late:
            self._take_out(request)
            _expire(request)
        if late and len(waiting) - len(late) < self._limits.max_batch:
            await asyncio.sleep(max(_FRESH_SECONDS, self._durations.expected(late[0].group, 1, now) / 10))

    def _take(self) -> list[_Request[Payload, Result]]:
        """The next batch, taken out of the lanes; those that it serves go to the end of the turn."""
        now = asyncio.get_running_loop().time()
        waiting, most = list(self._in_turn()), self._limits.max_batch
        if not waiting:
            return []
        size = 1 << (min(len(waiting), most) - 1).bit_length()
        while size > 1 and not self._without_overtaking(waiting, size, now):
            size //= 2
        batch = self._without_overtaking(waiting, size, now)[: min(size, most)]
        batch = batch or [max(waiting, key=lambda request: request.deadline)]
        for request in batch:
            self._take_out(request)
        for request in batch:
            if request.lane in self._lanes:
                self._lanes.move_to_end(request.lane)
        return batch

    def _without_overtaking(
        self, requests: list[_Request[Payload, Result]], size: int, now: float
    ) -> list[_Request[Payload, Result]]:
        """Those that are in time in a batch of `size`, and of each lane none behind one that is not."""
        kept: list[_Request[Payload, Result]] = []
        blocked: set[Hashable] = set()
        for request in requests:
            if request.lane not in blocked and self._in_time(request, size, now):
                kept.append(request)
            else:
                blocked.add(request.lane)
        return kept

    def _in_time(self, request: _Request[Payload, Result], size: int, now: float) -> bool:
        """Whether a batch of `size` that begins now should end before the request's deadline."""
        return now + self._durations.expected(request.group, size, now) < request.deadline

    def _in_turn(self) -> Iterator[_Request[Payload, Result]]:
        """Requests of the first lane's group: the first of each lane, then the second of each, ..."""
        lanes = [[request for request in lane if not request.answer.done()] for lane in self._lanes.values()]
        lanes = [lane for lane in lanes if lane]
        group = lanes[0][0].group if lanes else None
        # A lane's requests keep their order: none overtakes one of another group.
        fitting = [list(itertools.takewhile(lambda request: request.group == group, lane)) for lane in lanes]
        for turn in itertools.zip_longest(*fitting):
            yield from (request for request in turn if request is not None)


class _Durations:
    """How long batches of late took, by group and padded size."""

    def __init__(self) -> None:
        self._known: dict[tuple[Hashable, int], collections.deque[tuple[float, float]]] = {}

    def add(self, group: Hashable, size: int, now: float, seconds: float) -> None:
        key = (group, 1 << (size - 1).bit_length())
        for old in [other for other, times in self._known.items() if now - times[-1][0] > _REMEMBERED_SECONDS]:
            del self._known[old]
        self._known.setdefault(key, collections.deque(maxlen=_REMEMBERED)).append((now, seconds))

    def expected(self, group: Hashable, size: int, now: float) -> float:
        """Seconds that a batch takes at least; 0 where nobody knows. `size` is a power of two."""
        times = self._known.get((group, size), ())
        return min((seconds for then, seconds in times if now - then <= _REMEMBERED_SECONDS), default=0.0)


def stale(allowed_seconds: float) -> Refusal:
    """What a request is told whose deadline has come."""
    return Refusal(
        "stale",
        f"no action within {1000 * allowed_seconds:.0f} ms; send a fresh observation, or allow more time",
    )


def _expire(request: _Request[Any, Any]) -> None:
    _answer(request, stale(request.deadline - request.entered))


def _answer(request: _Request[Any, Result], answer: "Served[Result] | Refusal") -> None:
    if request.answer.done():  # stale meanwhile, or given up
        return
    if isinstance(answer, Refusal):
        request.answer.set_exception(answer)
    else:
        request.answer.set_result(answer)
