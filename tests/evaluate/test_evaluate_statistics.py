"""Wilson's interval against its equation, and what must hold of any interval."""

import math
import statistics

import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from rt2_jax.evaluate.statistics import mean_interval, wilson_interval


@given(st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.floats(0.5, 0.999))
def test_is_the_solution_of_wilsons_equation(counts, confidence):
    successes, trials = counts
    z = statistics.NormalDist().inv_cdf((1.0 + confidence) / 2.0)
    rate, scale = successes / trials, 1.0 + z * z / trials
    centre = (rate + z * z / (2 * trials)) / scale
    half = z * math.sqrt(rate * (1.0 - rate) / trials + z * z / (4.0 * trials * trials)) / scale
    expected = (max(0.0, centre - half), min(1.0, centre + half))
    assert wilson_interval(successes, trials, confidence) == pytest.approx(expected, abs=1e-12)


def test_known_values():
    # Newcombe 1998, table I: 81/263, 15/148, 0/20 and 1/29 by the score method without continuity correction.
    for counts, expected in (
        ((81, 263), (0.2553, 0.3662)),
        ((15, 148), (0.0624, 0.1605)),
        ((0, 20), (0.0, 0.1611)),
        ((1, 29), (0.0061, 0.1718)),
    ):
        assert wilson_interval(*counts) == pytest.approx(expected, abs=5e-5)


@given(st.integers(1, 300).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_holds_the_rate_stays_inside_and_mirrors(counts):
    successes, trials = counts
    low, high = wilson_interval(successes, trials)
    assert 0.0 <= low <= successes / trials <= high <= 1.0
    assert high - low > 0.0
    mirrored = wilson_interval(trials - successes, trials)
    assert (1 - mirrored[1], 1 - mirrored[0]) == pytest.approx((low, high))


def test_no_trials_say_nothing():
    assert wilson_interval(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize("arguments", [(-1, 3), (4, 3), (1, 3, 0.0), (1, 3, 1.0)])
def test_refuses_impossible_arguments(arguments):
    with pytest.raises(ValueError, match="must lie"):
        wilson_interval(*arguments)


def test_student_s_interval_is_of_the_mean():
    values = [1.0, 2.0, 4.0, 7.0]
    expected = scipy.stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    assert mean_interval(values) == pytest.approx((expected.low, expected.high))
    assert mean_interval([3.0]) is None and mean_interval([2.0, 2.0]) == (2.0, 2.0)
