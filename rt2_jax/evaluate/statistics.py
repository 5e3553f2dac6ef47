"""Intervals for success rates and for means."""

import math
import statistics
from collections.abc import Sequence

from scipy import stats


def wilson_interval(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """The Wilson score interval of a binomial proportion.

    With p = k / n and z the normal quantile of (1 + confidence) / 2, the interval is the set of true rates q with
    ``|p - q| <= z * sqrt(q * (1 - q) / n)``.
    E. B. Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927), 209-212.
    Unlike the normal approximation it stays inside [0, 1] and has a width at 0 and at n successes, where robot
    evaluations often land.

    Args:
      successes: number of successes, 0 <= successes <= trials.
      trials: number of trials; with none, nothing is known and the interval is (0, 1).
      confidence: two-sided coverage in (0, 1).

    Returns:
      (low, high), fractions in [0, 1].

    Raises:
      ValueError: the counts or the confidence are out of range.
    """
    if not 0 <= successes <= trials:
        raise ValueError(f"successes must lie in 0..{trials}, got {successes}")
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence must lie strictly between 0 and 1, got {confidence}")
    if trials == 0:
        return 0.0, 1.0
    interval = stats.binomtest(successes, trials).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float] | None:
    """Student's interval of the mean of independent values; None for fewer than two, which say nothing of their spread.

    Args:
      values: finite numbers.
      confidence: two-sided coverage in (0, 1).
    """
    if len(values) < 2:
        return None
    mean, spread = statistics.fmean(values), statistics.stdev(values) / math.sqrt(len(values))
    half = float(stats.t.ppf((1.0 + confidence) / 2.0, len(values) - 1)) * spread
    return mean - half, mean + half
