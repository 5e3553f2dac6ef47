import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rt2_jax.data.mixtures import CO_TRAINED_WEB, MIXTURES, ROBOT, WEB, mixture_weights
from rt2_jax.data.schedule import MAX_DENOMINATOR, make_schedule, shuffled_index
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


@pytest.mark.parametrize("weights", [{}, {"a": 0.0}, {"a": 1, "b": -1}, {"a": float("nan")}, {"a": float("inf")}])
def test_bad_weights_are_refused(weights):
    with pytest.raises(UserError, match="mixture"):
        make_schedule(weights, 8)


def test_a_batch_of_nothing_is_refused():
    with pytest.raises(UserError, match="global batch is 0"):
        make_schedule({"a": 1}, 0)


def test_shipped_mixtures_hold_their_robot_share():
    for name, robot_share in (("tabletop_cofinetune_50", 0.5), ("tabletop_cofinetune_66", 0.66)):
        weights = mixture_weights(name)
        assert set(weights) == {*ROBOT, *CO_TRAINED_WEB}
        assert sum(weights.values()) == pytest.approx(1)
        assert sum(weights[task] for task in ROBOT) == pytest.approx(robot_share)
    assert mixture_weights("tabletop_robot_only") == dict(ROBOT)
    assert mixture_weights("tabletop_web_only") == dict(WEB)
    assert all(sum(weights.values()) == pytest.approx(1) for weights in MIXTURES.values())


def test_an_unknown_mixture_names_the_known_ones():
    with pytest.raises(UserError, match="'nope' is unknown.*tabletop_cofinetune_50"):
        mixture_weights("nope")
