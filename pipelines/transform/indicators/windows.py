"""Moments and ranks of sliding windows whose rounding depends on nothing outside of the window."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipelines.transform.indicators.bars import Values

# A few arrays of this many values stay in the processor's cache.
_BLOCK = 16_384
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class _Moments:
    """Mean and sum of squared deviations of each run of `width` values, by the run's first."""

    width: int
    mean: Values
    squares: Values

    def then(self, after: _Moments) -> _Moments:
        """Return the moments of each run together with the run that follows it."""
        width = self.width + after.width
        size = self.mean.size - after.width
        following = slice(self.width, self.width + size)
        delta = after.mean[following] - self.mean[:size]
        mean = self.mean[:size] + delta * (after.width / width)
        squares = self.squares[:size] + after.squares[following] + delta * delta * (self.width * after.width / width)
        return _Moments(width, mean, squares)


def window_moments(values: Values, width: int) -> tuple[Values, Values]:
    """Return mean and sum of squared deviations of the last `width` values at each place; NaN before there are so many.

    Runs are merged pairwise (Chan, Golub and LeVeque 1979, "Updating formulae and a pairwise algorithm for computing
    sample variances"), which loses nothing to cancellation: equal values have a deviation of exactly zero. A running
    sum is quicker, but carries the rounding of all earlier values along.
    """
    mean, squares = (np.full(values.size, np.nan) for _ in range(2))
    for start in range(0, values.size - width + 1, _BLOCK):
        part = _merged(values[start : start + _BLOCK + width - 1], width)
        ends = slice(start + width - 1, start + width - 1 + part.mean.size)
        mean[ends], squares[ends] = part.mean, part.squares
    return mean, squares


def _merged(values: Values, width: int) -> _Moments:
    run = _Moments(1, values, np.zeros(values.size))
    whole: _Moments | None = None
    while True:
        if width & run.width:
            whole = run if whole is None else whole.then(run)
            if whole.width == width:
                return whole
        run = run.then(run)


def count_lower(values: Values, lags: int) -> Values:
    """Return how many of the `lags` values before each are lower than it by more than rounding: a part in 10^9.

    Values are not negative. NaN where one of them, or the value itself, is NaN.
    """
    counts = np.full(values.size, np.nan)
    for start in range(lags, values.size, _BLOCK):
        part = values[start - lags : start + _BLOCK]
        size = part.size - lags
        here = part[lags:] * (1 - _ROUNDING)
        lower = np.zeros(size, dtype=np.uint8)
        for lag in range(1, lags + 1):
            lower += part[lags - lag : lags - lag + size] < here
        gaps = np.concatenate([[0], np.cumsum(np.isnan(part))])
        whole = gaps[lags + 1 :] == gaps[:size]
        counts[start : start + size] = np.where(whole, lower, np.nan)
    return counts


def ratio(numerator: Values, denominator: Values, above: float = 0.0) -> Values:
    """Return numerator / denominator, and NaN unless the denominator is above the limit."""
    defined = denominator > above
    result: Values = np.divide(numerator, denominator, out=np.full(denominator.size, np.nan), where=defined)
    return result


def lagged(values: Values, lag: int) -> Values:
    """Return the value `lag` places earlier; NaN where there is none."""
    earlier = np.full(values.size, np.nan)
    earlier[lag:] = values[: max(values.size - lag, 0)]
    return earlier
