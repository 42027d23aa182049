"""Bollinger bands, average true range, historical volatility and the market regime."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import talib

from pipelines.transform.indicators.bars import Bars, Results, Values
from pipelines.transform.indicators.smoothing import WILDER_AVERAGE, smoothed
from pipelines.transform.indicators.trend import true_range
from pipelines.transform.indicators.windows import count_lower, ratio, window_moments

REGIMES = ("range", "trend", "volatile")
RANK_BARS = 99

_WINDOW = 20
_DEVIATIONS = 2.0
_PERIOD = 14
_TREND = 25.0
_VOLATILE_RANK = 90


def bollinger_bands(bars: Bars) -> Results:
    """Return the bands of 20 closes and two standard deviations, their width, and where the close is between them."""
    middle, squares = window_moments(bars.close, _WINDOW)
    reach = _DEVIATIONS * np.sqrt(squares / _WINDOW)
    return {
        "bb_upper": middle + reach,
        "bb_middle": middle,
        "bb_lower": middle - reach,
        "bb_width": ratio(2 * reach, middle),
        "percent_b": 0.5 + ratio(bars.close - middle, 2 * reach),
    }


def average_true_range(bars: Bars, last: Mapping[str, float] | None) -> Results:
    """Return ATR 14."""
    if last is None:
        return {"atr_14": talib.ATR(bars.high, bars.low, bars.close, _PERIOD)}
    return {"atr_14": smoothed(true_range(bars), WILDER_AVERAGE, bars.known, last["atr_14"])}


def historical_volatility(log_return: Values, bars_per_year: float) -> Values:
    """Return the annualised sample standard deviation of 20 log returns."""
    _, squares = window_moments(log_return, _WINDOW)
    return np.sqrt(squares / (_WINDOW - 1) * bars_per_year)


def market_regime(volatility: Values, adx: Values) -> Values:
    """Return places in REGIMES, NaN while undefined, by the rule of the column's description."""
    lower = count_lower(volatility, RANK_BARS)
    calm = np.where(adx >= _TREND, REGIMES.index("trend"), REGIMES.index("range"))
    regime = np.where(lower >= _VOLATILE_RANK, float(REGIMES.index("volatile")), calm)
    return np.where(np.isnan(lower) | np.isnan(adx), np.nan, regime)
