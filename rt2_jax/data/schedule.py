"""Which task each row of each global batch comes from: exact shares, computed for any batch from its number alone.

Shares are integers over one denominator, so the schedule repeats after ``denominator / gcd(denominator, batch size)``
batches. One period is laid out when the schedule is made; any batch is then a table look-up, which is what lets a run
resume at any position.
"""

import dataclasses
import functools
import heapq
import math
import zlib
from collections.abc import Mapping
from fractions import Fraction

import numpy as np
from grain.experimental import index_shuffle

from rt2_jax.errors import UserError

# Shares whose common denominator passes this are rounded to it.
MAX_DENOMINATOR = 65_536
# Numbers in a schedule's table, one for each task and batch of a period: 128 MiB.
MAX_CELLS = 2**24
MAX_BATCH = 2**20
MAX_WEIGHT = 1e300  # a number that a weight can be told by; NaN and infinity are not below it
# The part of all examples that rounded shares may take from other tasks than the weights say.
MAX_OFF = 0.02
_SHUFFLE_ROUNDS = 4


@dataclasses.dataclass(frozen=True)
class MixtureSchedule:
    """How a stream of global batches is shared among tasks; make one with `make_schedule`.

    Attributes:
        tasks: names, in the order of the weights.
        numerators: each task's share is its numerator / denominator.
        denominator: the sum of the numerators.
        batch_size: B, examples in a global batch.
        extra: int64[period + 1, tasks]: how many of the first n batches of a period hold one more than
            ``floor(B * share)`` examples of a task.
    """

    tasks: tuple[str, ...]
    numerators: tuple[int, ...]
    denominator: int
    batch_size: int
    extra: np.ndarray

    @property
    def period(self) -> int:
        """Batches after which the schedule repeats."""
        return len(self.extra) - 1

    def before(self, batch: int) -> np.ndarray:
        """int64[tasks]: examples of each task in all global batches before number `batch`.

        It differs from ``batch * B * share`` by less than one.
        """
        periods, rest = divmod(batch, self.period)
        floors = self.batch_size * np.asarray(self.numerators, np.int64) // self.denominator
        return batch * floors + periods * self.extra[-1] + self.extra[rest]

    def counts(self, batch: int) -> np.ndarray:
        """int64[tasks]: examples of each task in global batch number `batch`: B * share, rounded down or up."""
        return self.before(batch + 1) - self.before(batch)

    def rows(self, batch: int) -> tuple[np.ndarray, np.ndarray]:
        """(int32[B], int64[B]): each row's task index, and its number in that task's own stream of examples.

        Tasks are spread evenly over the rows, so that hosts and microbatches see the mixture too.
        """
        task = _spread(tuple(int(count) for count in self.counts(batch)))
        ordinal = self.before(batch)[task]
        order = np.argsort(task, kind="stable")
        ordinal[order] += _places(np.bincount(task, minlength=len(self.tasks)))
        return task, ordinal


def make_schedule(weights: Mapping[str, float], batch_size: int) -> MixtureSchedule:
    """Lays out one period of the mixture.

    Every batch holds each task's share rounded down or up, and so does every run of batches from the first: tasks are
    Pfair-scheduled (Baruah et al. 1996) with the PD2 priorities (Srinivasan and Anderson 2002), one slot for each
    example that the rounded-down shares leave over.

    Args:
        weights: task -> weight > 0; they need not sum to one.
        batch_size: examples in a global batch.

    Raises:
        UserError: no task, a weight that is not a positive finite number, a batch size outside 1 .. `MAX_BATCH`, or
            more tasks than a schedule of `MAX_CELLS` numbers can give their shares.
    """
    if not 1 <= batch_size <= MAX_BATCH:
        raise UserError(f"global batch is {batch_size}; choose at least 1 example and at most {MAX_BATCH}")
    numerators = _integer_shares(weights, batch_size)
    denominator = sum(numerators)
    common = math.gcd(denominator, batch_size)
    left_over = [batch_size * numerator % denominator // common for numerator in numerators]
    extra = _pfair(left_over, denominator // common)
    return MixtureSchedule(tuple(weights), numerators, denominator, batch_size, extra)


def shuffled_index(task: str, ordinal: int, size: int, seed: int) -> int:
    """The record that example number `ordinal` of a task's stream is: each epoch of `size` is its own permutation.

    Computed without a buffer; the same on every host and machine.
    """
    epoch, place = divmod(int(ordinal), size)
    salt = zlib.crc32(f"{seed}/{task}/{epoch}".encode())
    return index_shuffle(place, size - 1, salt, _SHUFFLE_ROUNDS)


def _integer_shares(weights: Mapping[str, float], batch_size: int) -> tuple[int, ...]:
    """Numerators of the shares over their sum: exact where the table of a period can hold that, else rounded."""
    exact = _exact_shares(weights)
    shares = exact if sum(exact) <= MAX_DENOMINATOR else _rounded(exact)
    if shares and _period(sum(shares), batch_size) < _most_batches(shares) and _off(shares, exact) <= MAX_OFF:
        return shares
    # Of a denominator that is a multiple of the batch size the period is the quotient, so it can be made to fit.
    denominator = batch_size * min(_most_batches(exact) - 1, MAX_DENOMINATOR)
    shares = _nearest(exact, denominator)
    if not shares or _off(shares, exact) > MAX_OFF:
        found = f"{_off(shares, exact):.0%} of the examples would be other tasks'" if shares else "some would get none"
        raise UserError(
            f"mixture: a batch of {batch_size} is too small for the shares of {len(exact)} tasks ({found}); choose a "
            "larger batch, fewer tasks, or weights in simple ratios"
        )
    return shares


def _exact_shares(weights: Mapping[str, float]) -> tuple[int, ...]:
    """The smallest whole numbers in the weights' ratios."""
    if not weights:
        raise UserError("mixture: it has no task; give at least one task and its weight")
    for task, weight in weights.items():
        if not (isinstance(weight, int | float) and not isinstance(weight, bool) and 0 < weight <= MAX_WEIGHT):
            raise UserError(
                f"mixture: the weight of {task} is {_shown(weight)}; give a number above 0, at most {MAX_WEIGHT:g}, "
                "or leave it out"
            )
    # Through the decimal text: 0.1 means one tenth, not the nearest binary fraction.
    exact = [Fraction(str(weight)) for weight in weights.values()]
    unit = math.lcm(*(weight.denominator for weight in exact))
    whole = [weight.numerator * (unit // weight.denominator) for weight in exact]
    common = math.gcd(*whole)
    return tuple(number // common for number in whole)


def _shown(weight: object) -> str:
    is_long = isinstance(weight, int) and abs(weight) > MAX_WEIGHT  # Python refuses to write such numbers out
    return f"beyond {MAX_WEIGHT:g}" if is_long else repr(weight)[:40]


def _rounded(exact: tuple[int, ...]) -> tuple[int, ...]:
    """The shares over `MAX_DENOMINATOR`; the largest takes what rounding leaves. () for too many tasks."""
    spare, total = MAX_DENOMINATOR - len(exact), sum(exact)
    if spare < 0:
        return ()
    # One unit is set aside for each task, so that the smallest weight still has a share.
    rounded = [1 + share * spare // total for share in exact]
    rounded[rounded.index(max(rounded))] += MAX_DENOMINATOR - sum(rounded)
    return tuple(rounded)


def _nearest(exact: tuple[int, ...], denominator: int) -> tuple[int, ...]:
    """The shares over `denominator`, by largest remainder and none below one; () for too many tasks."""
    if denominator < len(exact):
        return ()
    total = sum(exact)
    rounded = [max(1, share * denominator // total) for share in exact]
    spare = denominator - sum(rounded)
    if spare > 0:
        remainders = sorted(range(len(exact)), key=lambda i: rounded[i] * total - exact[i] * denominator)
        for index in remainders[:spare]:
            rounded[index] += 1
    # What the smallest were given the largest pay: it is the least part of theirs.
    largest = [(-share, index) for index, share in enumerate(rounded)]
    heapq.heapify(largest)
    for _ in range(-spare):
        share, index = largest[0]
        rounded[index] -= 1
        heapq.heapreplace(largest, (share + 1, index))
    return tuple(rounded)


def _off(shares: tuple[int, ...], exact: tuple[int, ...]) -> float:
    """The part of all examples that come from other tasks than the exact shares say."""
    denominator, total = sum(shares), sum(exact)
    wrong = sum(abs(share * total - wanted * denominator) for share, wanted in zip(shares, exact, strict=True))
    return float(Fraction(wrong, 2 * total * denominator))


def _period(denominator: int, batch_size: int) -> int:
    return denominator // math.gcd(denominator, batch_size)


def _most_batches(shares: tuple[int, ...]) -> int:
    """Rows that the table of so many tasks may have."""
    return MAX_CELLS // len(shares)


def _pfair(shares: list[int], period: int) -> np.ndarray:
    """int64[period + 1, tasks]: running counts of a schedule that gives task i ``shares[i]`` of every `period` batches.

    ``shares[i] < period``; their sum is a multiple of `period`. After every batch each count is within one of exact.
    """
    slots = sum(shares) // period
    running = np.zeros((period + 1, len(shares)), np.int64)
    if not slots:
        return running
    waiting = np.flatnonzero(shares)
    share = np.array(shares, np.int64)[waiting]
    given = np.zeros_like(share)
    release = np.zeros_like(share)
    index = np.arange(len(share))
    priority = _priority(given + 1, share, period, index)
    for batch in range(period):
        ready = np.flatnonzero(release <= batch)
        if len(ready) > slots:
            ready = ready[np.argpartition(priority[ready], slots - 1)[:slots]]
        given[ready] += 1
        release[ready] = given[ready] * period // share[ready]
        priority[ready] = _priority(given[ready] + 1, share[ready], period, index[ready])
        running[batch + 1, waiting] = given
    return running


def _priority(number: np.ndarray, share: np.ndarray, period: int, index: np.ndarray) -> np.ndarray:
    """int64: PD2's order for the tasks' `number`-th slots, the least first; no two are equal.

    It is the earliest deadline, then overlapping windows, then the latest group deadline, then the task's place.
    """
    deadline = _ceil(number * period, share)
    overlaps = number * period % share != 0
    rest = period - share
    group = np.where(2 * share >= period, _ceil(_ceil(deadline * rest, period) * period, rest), 0)
    # A period of at most 2**16 keeps deadlines below 2**18 and group deadlines below 2**19; the table, 2**24 tasks.
    return ((deadline << 1 | (1 - overlaps)) << 20 | (2**19 - group)) << 24 | index


def _ceil(numerator: np.ndarray, denominator: np.ndarray | int) -> np.ndarray:
    """The quotient, rounded up."""
    return -(-numerator // denominator)


@functools.lru_cache(maxsize=256)
def _spread(counts: tuple[int, ...]) -> np.ndarray:
    """int32[sum(counts)]: task indices, each task's rows as evenly spaced as can be."""
    each = np.array(counts, np.int64)
    task = np.repeat(np.arange(len(counts), dtype=np.int32), each)
    place = (_places(each) + 0.5) / each[task]
    spread = task[np.argsort(place, kind="stable")]
    spread.setflags(write=False)
    return spread


def _places(counts: np.ndarray) -> np.ndarray:
    """0, 1, ... for each task in turn, as often as it counts."""
    return np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
