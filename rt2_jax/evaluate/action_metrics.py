"""Decoded actions against the demonstrations', for any action space: flags as shares, the rest as errors in units."""

import numpy as np

from rt2_jax.actions.bins import ActionBins
from rt2_jax.actions.space import CONTINUOUS
from rt2_jax.evaluate.results import DimensionScores

# Physical units as a report shows them: name, factor. Others are shown as they are.
_UNITS: dict[str, tuple[str, float]] = {"m": ("cm", 100.0), "rad": ("deg", 180.0 / np.pi)}


def score_dimensions(bins: ActionBins, wanted: np.ndarray, decoded: np.ndarray) -> tuple[DimensionScores, ...]:
    """Scores of each dimension, in order.

    Args:
      bins: what cut the actions.
      wanted, decoded: int32[n, width], n > 0: the demonstrations' bins and the policy's.
    """
    space = bins.space
    right, step = wanted == decoded, bins.bin_size
    # Errors are between decoded values: what the robot would have felt.
    wanted_values, values = bins.decode(wanted), bins.decode(decoded)
    scores = []
    for index, kind in enumerate(space.kinds):
        column, target = values[:, index], wanted_values[:, index]
        shown, factor = _UNITS.get(space.units[index], (space.units[index], 1.0))
        accuracy = float(right[:, index].mean())
        if kind == CONTINUOUS:
            error = np.abs(column - target) * factor
            signed = np.abs(target) > step[index] if space.low[index] < 0 < space.high[index] else np.zeros(0, bool)
            scores.append(
                DimensionScores(
                    name=space.names[index],
                    unit=shown,
                    kind=kind,
                    token_accuracy=accuracy,
                    mean_error=float(error.mean()),
                    median_error=float(np.median(error)),
                    p90_error=float(np.quantile(error, 0.9)),
                    sign_accuracy=_share((np.sign(column) == np.sign(target))[signed]) if signed.any() else None,
                )
            )
        else:
            middle = 0.5 * (space.low[index] + space.high[index])
            due, given = target >= middle, column >= middle
            scores.append(
                DimensionScores(
                    name=space.names[index],
                    unit=shown,
                    kind=kind,
                    token_accuracy=accuracy,
                    recall=_share(given[due]),
                    precision=_share(due[given]),
                )
            )
    return tuple(scores)


def _share(hits: np.ndarray) -> float | None:
    return float(hits.mean()) if len(hits) else None
