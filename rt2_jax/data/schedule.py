"""Which task each row of each global batch comes from: exact shares, computed for any batch from its number alone.

Shares are integers over one denominator, so the schedule repeats after ``denominator / gcd(denominator, batch size)``
batches. One period is laid out when the schedule is made; any batch is then a table look-up, which is what lets a run
resume at any position.
"""

import dataclasses
import functools
import math
import zlib
from collections.abc import Mapping
from fractions import Fraction

import numpy as np
from grain.experimental import index_shuffle

from rt2_jax.errors import UserError

# Shares whose common denominator passes this are rounded to it: a task's share is then off by at most 1 / 65536.
MAX_DENOMINATOR = 65_536
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
        for index in range(len(self.tasks)):
            mine = task == index
            ordinal[mine] += np.arange(mine.sum())
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
        UserError: no task, a weight that is not a positive finite number, or a batch size below 1.
    """
    if batch_size < 1:
        raise UserError(f"global batch is {batch_size}; choose at least 1 example")
    numerators = _integer_shares(weights)
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


def _integer_shares(weights: Mapping[str, float]) -> tuple[int, ...]:
    if not weights:
        raise UserError("mixture: it has no task; give at least one task and its weight")
    for task, weight in weights.items():
        if not (isinstance(weight, int | float) and math.isfinite(weight) and weight > 0):
            raise UserError(f"mixture: the weight of {task} is {weight!r}; give a number above 0, or leave it out")
    # Through the decimal text: 0.1 means one tenth, not the nearest binary fraction.
    exact = [Fraction(str(weight)) for weight in weights.values()]
    shares = [weight / sum(exact) for weight in exact]
    denominator = math.lcm(*(share.denominator for share in shares))
    if denominator > MAX_DENOMINATOR:
        # One unit is set aside for each task, so that the smallest weight still has a share.
        rounded = [1 + int(share * (MAX_DENOMINATOR - len(shares))) for share in shares]
        rounded[rounded.index(max(rounded))] += MAX_DENOMINATOR - sum(rounded)
        return tuple(rounded)
    return tuple(int(share * denominator) for share in shares)


def _pfair(shares: list[int], period: int) -> np.ndarray:
    """int64[period + 1, tasks]: running counts of a schedule that gives task i ``shares[i]`` of every `period` batches.

    ``shares[i] < period``; their sum is a multiple of `period`. After every batch each count is within one of exact.
    """
    slots = sum(shares) // period
    running = np.zeros((period + 1, len(shares)), np.int64)
    given = [0] * len(shares)
    waiting = [index for index, share in enumerate(shares) if share]
    for batch in range(period if slots else 0):
        ready = [i for i in waiting if given[i] * period // shares[i] <= batch]
        for i in sorted(ready, key=lambda i: _priority(given[i] + 1, shares[i], period))[:slots]:
            given[i] += 1
        running[batch + 1] = given
    return running


def _priority(number: int, share: int, period: int) -> tuple[int, int, int]:
    """PD2's order for a task's `number`-th slot: earliest deadline, then overlapping windows, then group deadline."""
    deadline = _ceil(number * period, share)
    overlaps = number * period % share != 0
    group = 0
    if 2 * share >= period:
        rest = period - share
        group = _ceil(_ceil(deadline * rest, period) * period, rest)
    return deadline, -overlaps, -group


def _ceil(numerator: int, denominator: int) -> int:
    return -(-numerator // denominator)


@functools.lru_cache(maxsize=256)
def _spread(counts: tuple[int, ...]) -> np.ndarray:
    """int32[sum(counts)]: task indices, each task's rows as evenly spaced as can be."""
    task = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    place = np.concatenate([(np.arange(count) + 0.5) / max(count, 1) for count in counts])
    spread = task[np.argsort(place, kind="stable")]
    spread.setflags(write=False)
    return spread
