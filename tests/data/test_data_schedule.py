import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rt2_jax.data.schedule import MAX_CELLS, MAX_DENOMINATOR, MAX_OFF, make_schedule, shuffled_index
from rt2_jax.datasets.tabletop.mixtures import CO_TRAINED_WEB, MIXTURES, ROBOT, WEB
from rt2_jax.errors import UserError

# Weights as people write them, and a few awkward ones.
WEIGHTS = st.lists(
    st.one_of(
        st.integers(1, 200).map(lambda n: n / 10),
        st.integers(1, 300),
        st.sampled_from([1 / 3, 0.001, 2 / 7, 99.9]),
    ),
    min_size=1,
    max_size=9,
)


@settings(max_examples=40, deadline=None)
@given(weights=WEIGHTS, batch_size=st.sampled_from([1, 2, 3, 8, 10, 32, 50, 64, 100, 2048]))
def test_shares_are_exact_in_every_batch_and_never_drift(weights, batch_size):
    schedule = make_schedule({f"t{i}": weight for i, weight in enumerate(weights)}, batch_size)
    exact = np.array(weights) / sum(weights)
    shares = np.array(schedule.numerators) / schedule.denominator
    np.testing.assert_allclose(shares, exact, atol=len(weights) / MAX_DENOMINATOR)

    batches = np.arange(min(schedule.period, 300) + 1)
    before = np.stack([schedule.before(int(batch)) for batch in batches])
    counts = np.diff(before, axis=0)
    assert (counts.sum(1) == batch_size).all()
    assert (counts >= np.floor(batch_size * shares - 1e-9)).all()
    assert (counts <= np.ceil(batch_size * shares + 1e-9)).all()
    assert np.abs(before - batches[:, None] * batch_size * shares).max() < 1

    whole = schedule.before(schedule.period)
    assert (whole * schedule.denominator == schedule.period * batch_size * np.array(schedule.numerators)).all()


def reference_shares(weights):
    """Shares as the first releases computed them: slow, and what every run up to now was trained with."""
    exact = [Fraction(str(weight)) for weight in weights]
    shares = [weight / sum(exact) for weight in exact]
    denominator = math.lcm(*(share.denominator for share in shares))
    if denominator > MAX_DENOMINATOR:
        rounded = [1 + int(share * (MAX_DENOMINATOR - len(shares))) for share in shares]
        rounded[rounded.index(max(rounded))] += MAX_DENOMINATOR - sum(rounded)
        return tuple(rounded)
    return tuple(int(share * denominator) for share in shares)


def reference_table(numerators, batch_size):
    """The table as the first releases computed it, one task after the other."""

    def ceil(numerator, denominator):
        return -(-numerator // denominator)

    def priority(number, share):
        deadline = ceil(number * period, share)
        group = 0
        if 2 * share >= period:
            rest = period - share
            group = ceil(ceil(deadline * rest, period) * period, rest)
        return deadline, -(number * period % share != 0), -group

    denominator = sum(numerators)
    common = math.gcd(denominator, batch_size)
    period = denominator // common
    shares = [batch_size * numerator % denominator // common for numerator in numerators]
    slots = sum(shares) // period
    running = np.zeros((period + 1, len(shares)), np.int64)
    given = [0] * len(shares)
    waiting = [index for index, share in enumerate(shares) if share]
    for batch in range(period if slots else 0):
        ready = [i for i in waiting if given[i] * period // shares[i] <= batch]
        for i in sorted(ready, key=lambda i: priority(given[i] + 1, shares[i]))[:slots]:
            given[i] += 1
        running[batch + 1] = given
    return running


def reference_rows(schedule, batch):
    counts = schedule.counts(batch)
    task = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    place = np.concatenate([(np.arange(count) + 0.5) / max(count, 1) for count in counts])
    task = task[np.argsort(place, kind="stable")]
    ordinal = schedule.before(batch)[task]
    for index in range(len(counts)):
        mine = task == index
        ordinal[mine] += np.arange(mine.sum())
    return task, ordinal


def same_as_reference(weights, batch_size):
    schedule = make_schedule(weights, batch_size)
    assert schedule.numerators == reference_shares(weights.values())
    assert np.array_equal(schedule.extra, reference_table(schedule.numerators, batch_size))
    for batch in (0, 1, schedule.period - 1, 3 * schedule.period + 2):
        for found, wanted in zip(schedule.rows(batch), reference_rows(schedule, batch), strict=True):
            assert found.dtype == wanted.dtype and np.array_equal(found, wanted)


@pytest.mark.parametrize("mixture", MIXTURES)
@pytest.mark.parametrize("batch_size", [1, 2, 7, 8, 30, 64, 100, 2048])
def test_shipped_mixtures_keep_their_schedules(mixture, batch_size):
    same_as_reference(MIXTURES[mixture], batch_size)


@settings(max_examples=60, deadline=None)
@given(
    weights=st.lists(st.one_of(st.integers(1, 40), st.sampled_from([0.5, 0.25, 1.5, 12.5])), min_size=1, max_size=40),
    batch_size=st.integers(1, 300),
)
def test_any_schedule_is_as_it_always_was(weights, batch_size):
    same_as_reference({f"t{i}": weight for i, weight in enumerate(weights)}, batch_size)


@pytest.mark.parametrize("batch_size", [64, 2048, 96])
def test_rounded_shares_are_as_they_always_were(batch_size):
    same_as_reference({"a": 1 / 3, "b": 2 / 7, "c": 0.001, "d": 99.9, "e": 1e-9}, batch_size)


def many(count, kind):
    rng = np.random.default_rng(0)
    drawn = {
        "equal": np.ones(count),
        "random": rng.uniform(0.5, 1.5, count),
        "whole": rng.integers(1, 9, count),
        "steep": np.append(np.full(count - 1, 1e-6), 1.0),
        "zipf": 1 / np.arange(1, count + 1),
    }[kind]
    return {f"task{index}": float(weight) for index, weight in enumerate(drawn)}


@pytest.mark.parametrize("batch_size", [7, 64, 2048])
@pytest.mark.parametrize("kind", ["equal", "random", "whole", "steep", "zipf"])
def test_ten_thousand_tasks_are_quick_or_refused(kind, batch_size):
    weights = many(10_000, kind)
    try:
        schedule = make_schedule(weights, batch_size)
    except UserError as error:
        assert f"a batch of {batch_size} is too small for the shares of 10000 tasks" in str(error)
        assert batch_size == 7 or (kind, batch_size) == ("steep", 64)
        return
    assert schedule.extra.size <= MAX_CELLS and min(schedule.numerators) > 0
    exact = np.array(list(weights.values())) / sum(weights.values())
    shares = np.array(schedule.numerators) / schedule.denominator
    assert np.abs(shares - exact).sum() / 2 <= MAX_OFF
    before = np.stack([schedule.before(batch) for batch in (0, 1, 2, schedule.period - 1, schedule.period)])
    assert (np.diff(before, axis=0).min(1) >= 0).all()
    assert (before.sum(1) == batch_size * np.array([0, 1, 2, schedule.period - 1, schedule.period])).all()
    rows, _ = schedule.rows(schedule.period + 1)
    assert np.array_equal(np.bincount(rows, minlength=10_000), schedule.counts(schedule.period + 1))


def test_a_long_period_is_cut_to_one_that_fits():
    weights = many(1_000, "random")
    schedule = make_schedule(weights, 7)
    assert schedule.period < MAX_DENOMINATOR and schedule.denominator % 7 == 0 and schedule.extra.size <= MAX_CELLS


def test_a_far_position_is_computed_not_reached():
    schedule = make_schedule({"a": 0.3, "b": 0.3, "c": 0.4}, 64)
    far = 10**12 + 7
    exact = far * 64 * np.array([0.3, 0.3, 0.4])
    assert np.abs(schedule.before(far) - exact).max() < 1
    rows, ordinals = schedule.rows(far)
    assert np.array_equal(np.bincount(rows, minlength=3), schedule.counts(far))
    for task in range(3):
        mine = ordinals[rows == task]
        assert np.array_equal(mine, np.arange(len(mine)) + schedule.before(far)[task])


def test_tasks_spread_over_the_rows_of_a_batch():
    rows, _ = make_schedule({"a": 1, "b": 1, "c": 2}, 64).rows(0)
    for quarter in rows.reshape(4, 16):
        assert np.abs(np.bincount(quarter, minlength=3) - [4, 4, 8]).max() <= 1


def test_weights_have_only_their_ratio():
    one = make_schedule({"a": 0.1, "b": 0.3}, 16)
    other = make_schedule({"a": 1, "b": 3}, 16)
    assert one.numerators == other.numerators == (1, 3)
    assert np.array_equal(one.extra, other.extra)


@settings(max_examples=40, deadline=None)
@given(size=st.integers(1, 300), seed=st.integers(0, 2**32 - 1), epoch=st.integers(0, 10**6))
def test_an_epoch_of_the_shuffle_is_a_permutation(size, seed, epoch):
    found = [shuffled_index("task", epoch * size + place, size, seed) for place in range(size)]
    assert sorted(found) == list(range(size))


def test_epochs_tasks_and_seeds_are_shuffled_differently():
    def order(task, epoch, seed):
        return [shuffled_index(task, epoch * 50 + place, 50, seed) for place in range(50)]

    orders = [order("a", 0, 0), order("a", 1, 0), order("b", 0, 0), order("a", 0, 1), list(range(50))]
    assert len({tuple(one) for one in orders}) == 5


@pytest.mark.parametrize(
    "weights",
    [
        {},
        {"a": 0.0},
        {"a": 1, "b": -1},
        {"a": float("nan")},
        {"a": float("inf")},
        {"a": True},
        {"a": "1"},
        {"a": None},
        {"a": 10**5000},
    ],
)
def test_bad_weights_are_refused(weights):
    with pytest.raises(UserError, match="mixture"):
        make_schedule(weights, 8)


def test_a_batch_of_nothing_is_refused():
    with pytest.raises(UserError, match="global batch is 0"):
        make_schedule({"a": 1}, 0)


def test_a_batch_beyond_all_measure_is_refused():
    with pytest.raises(UserError, match="at most 1048576"):
        make_schedule({"a": 1}, 2**60)


def test_shipped_mixtures_hold_their_robot_share():
    for name, robot_share in (("tabletop_cofinetune_50", 0.5), ("tabletop_cofinetune_66", 0.66)):
        weights = MIXTURES[name]
        assert set(weights) == {*ROBOT, *CO_TRAINED_WEB}
        assert sum(weights.values()) == pytest.approx(1)
        assert sum(weights[task] for task in ROBOT) == pytest.approx(robot_share)
    assert MIXTURES["tabletop_robot_only"] == dict(ROBOT)
    assert MIXTURES["tabletop_web_only"] == dict(WEB)
    assert all(sum(weights.values()) == pytest.approx(1) for weights in MIXTURES.values())
