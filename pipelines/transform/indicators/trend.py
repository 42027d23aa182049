"""Moving averages, MACD and Wilder's directional movement."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import talib

from pipelines.transform.indicators.bars import Bars, Results, Values
from pipelines.transform.indicators.smoothing import (
    NOTHING,
    WILDER_AVERAGE,
    WILDER_SUM,
    resumed_ema,
    smoothed,
    steps,
)
from pipelines.transform.indicators.windows import lagged, ratio

_ADX_FIRST = 27
_PERIOD = 14


def simple_averages(bars: Bars) -> Results:
    """Return SMA 20, 50 and 200."""
    return {f"sma_{period}": talib.SMA(bars.close, period) for period in (20, 50, 200)}


def exponential_averages(bars: Bars, last: Mapping[str, float] | None) -> Results:
    """Return EMA 12 and 26, and MACD 12/26/9 with signal and histogram."""
    if last is None:
        line, signal, histogram = talib.MACD(bars.close, 12, 26, 9)
        return {
            "ema_12": talib.EMA(bars.close, 12),
            "ema_26": talib.EMA(bars.close, 26),
            "macd": line,
            "macd_signal": signal,
            "macd_hist": histogram,
        }
    slow = resumed_ema(bars.close, 26, bars.known, last["ema_26"])
    # MACD's own EMA 12 starts later than the column ema_12; its EMA 26 is the column.
    line = resumed_ema(bars.close, 12, bars.known, last["macd"] + last["ema_26"]) - slow
    signal = resumed_ema(line, 9, bars.known, last["macd_signal"])
    return {
        "ema_12": resumed_ema(bars.close, 12, bars.known, last["ema_12"]),
        "ema_26": slow,
        "macd": line,
        "macd_signal": signal,
        "macd_hist": line - signal,
    }


def true_range(bars: Bars) -> Values:
    """Return the true range: from the higher of high and previous close to the lower of low and that; NaN at first."""
    previous = lagged(bars.close, 1)
    return np.maximum(bars.high, previous) - np.minimum(bars.low, previous)


def directional_movement(bars: Bars, last: Mapping[str, float] | None) -> Results:
    """Return ADX, +DI and -DI 14, and the sums behind them."""
    up, down = bars.high - lagged(bars.high, 1), lagged(bars.low, 1) - bars.low
    raw = {
        "state_true_range_14": true_range(bars),
        "state_plus_dm_14": np.where((up > down) & (up > 0), up, 0.0),
        "state_minus_dm_14": np.where((down > up) & (down > 0), down, 0.0),
    }
    sums = {
        name: smoothed(values, WILDER_SUM, bars.known, None if last is None else last[name])
        for name, values in raw.items()
    }
    plus, minus, span = sums["state_plus_dm_14"], sums["state_minus_dm_14"], sums["state_true_range_14"]
    dx = 100 * ratio(np.abs(plus - minus), plus + minus, NOTHING)
    adx = _average_index(dx, bars.known, None if last is None else last["state_adx_14"])
    # The sums are there a bar before Wilder's 14 bars are full.
    full = np.arange(len(bars)) >= _PERIOD
    return {
        "adx_14": np.where(np.isnan(dx), np.nan, adx),
        "plus_di_14": np.where(full, 100 * ratio(plus, span, NOTHING), np.nan),
        "minus_di_14": np.where(full, 100 * ratio(minus, span, NOTHING), np.nan),
        "state_adx_14": adx,
        **sums,
    }


def _average_index(dx: Values, known: int, last: float | None) -> Values:
    """Return Wilder's average of DX, which stays as it is over undefined ones."""
    adx = np.full(dx.size, np.nan)
    if last is not None:
        at, start = known - 1, last
    elif dx.size > _ADX_FIRST:
        at, start = _ADX_FIRST, float(np.nansum(dx[_PERIOD : _ADX_FIRST + 1])) / _PERIOD
    else:
        return adx
    defined = ~np.isnan(dx[at + 1 :])
    moved = steps(dx[at + 1 :][defined], WILDER_AVERAGE, start)
    adx[at] = start
    adx[at + 1 :] = np.concatenate([[start], moved])[np.cumsum(defined)]
    return adx
