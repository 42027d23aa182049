"""Wilder's sums and averages and exponential means, seeded as TA-Lib does or gone on with from a stored value."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import talib
from scipy.signal import lfilter  # type: ignore[import-untyped]  # it ships no types

from pipelines.transform.indicators.bars import Values

# After about 10,000 bars without movement Wilder's sums run out of float64, and their ratios would be rounding noise.
NOTHING = 1e-300


@dataclass(frozen=True, slots=True)
class Smoothing:
    """y[i] = weight x[i] + decay y[i-1]. The first y is at `first`: the sum of x[1] to x[first] over `divisor`.

    x[0] is left out because it compares the first bar with the one before.
    """

    weight: float
    decay: float
    first: int
    divisor: float


# Wilder 1978: an average moves by a fourteenth; a sum loses a fourteenth, and TA-Lib seeds it with 13 values.
WILDER_AVERAGE = Smoothing(1 / 14, 13 / 14, first=14, divisor=14.0)
WILDER_SUM = Smoothing(1.0, 13 / 14, first=13, divisor=1.0)


def resumed_ema(values: Values, period: int, known: int, last: float) -> Values:
    """Return TA-Lib's exponential mean gone on from its value at the last known bar; NaN before.

    TA-Lib seeds with the mean of the first values: that of zeros and one value of `period` times y is y.
    """
    seed = np.zeros(period)
    seed[-1] = period * last
    result = np.full(values.size, np.nan)
    result[known - 1 :] = talib.EMA(np.concatenate([seed, values[known:]]), period)[period - 1 :]
    return result


def smoothed(values: Values, how: Smoothing, known: int, last: float | None) -> Values:
    """Return the smoothed values; NaN before the first, and before the last known one.

    Args:
        values: x, one per bar.
        how: the recursion.
        known: how many bars come before those to be computed.
        last: y at the last known bar; None to seed at the beginning.
    """
    result = np.full(values.size, np.nan)
    if last is None and values.size <= how.first:
        return result
    at = how.first if last is None else known - 1
    result[at] = float(values[1 : at + 1].sum()) / how.divisor if last is None else last
    result[at + 1 :] = steps(values[at + 1 :], how, result[at])
    return result


def steps(values: Values, how: Smoothing, start: float) -> Values:
    """Return the recursion over values that follow `start`."""
    if values.size == 0:
        return values
    result, _ = lfilter([how.weight], [1.0, -how.decay], values, zi=[how.decay * start])
    return np.asarray(result, dtype=np.float64)
