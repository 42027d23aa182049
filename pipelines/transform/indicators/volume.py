"""On-balance volume, accumulation/distribution, and the session's volume-weighted price."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import numpy as np
import talib

from pipelines.transform.indicators.bars import Bars, Results, Values
from pipelines.transform.indicators.series import SeriesContext
from pipelines.transform.indicators.windows import lagged, ratio


def volume_lines(bars: Bars, last: Mapping[str, float] | None) -> Results:
    """Return OBV and the A/D line."""
    volume = np.nan_to_num(bars.volume, nan=0.0)
    if last is None:
        traded = np.maximum.accumulate(~np.isnan(bars.volume))
        lines = {
            "obv": talib.OBV(bars.close, volume),
            "ad_line": talib.AD(bars.high, bars.low, bars.close, volume),
        }
        return {name: np.where(traded, line, np.nan) for name, line in lines.items()}
    amounts = {
        "obv": np.sign(bars.close - lagged(bars.close, 1)) * volume,
        "ad_line": _accumulated(bars, volume),
    }
    return {name: _resumed_sum(bars, values, last[name]) for name, values in amounts.items()}


def _accumulated(bars: Bars, volume: Values) -> Values:
    place = (bars.close - bars.low) - (bars.high - bars.close)
    return np.nan_to_num(ratio(place, bars.high - bars.low), nan=0.0) * volume


def _resumed_sum(bars: Bars, amounts: Values, last: float) -> Values:
    """Return the running sum from the last known bar on; NaN until there has been a volume."""
    line = np.full(len(bars), np.nan)
    new = slice(bars.known, None)
    # One after another from the sum so far, so that every rounding is the one of an uninterrupted sum.
    line[new] = np.cumsum(np.concatenate([[np.nan_to_num(last)], amounts[new]]))[1:]
    if np.isnan(last):
        traded = np.maximum.accumulate(~np.isnan(bars.volume[new]))
        line[new][~traded] = np.nan
    return line


def session_vwap(bars: Bars, series: SeriesContext, last: Mapping[str, float] | None) -> Results:
    """Return the VWAP since the session began, and the two sums it is made of."""
    before = max(bars.known - 1, 0)
    session, inside = series.sessions(bars.at[before:])
    volume = np.where(inside, np.nan_to_num(bars.volume[before:], nan=0.0), 0.0)
    value = (bars.high[before:] + bars.low[before:] + bars.close[before:]) / 3 * volume
    if last is not None:
        # The last known bar stands for its session so far.
        volume[0], value[0] = last["state_session_volume"], last["state_session_value"]
    starts = [0, *np.flatnonzero(session[1:] != session[:-1]) + 1, session.size]
    for start, end in pairwise(starts):
        np.cumsum(volume[start:end], out=volume[start:end])
        np.cumsum(value[start:end], out=value[start:end])
    found = {
        "session_vwap": np.where(inside, ratio(value, volume), np.nan),
        "state_session_value": value,
        "state_session_volume": volume,
    }
    lead = np.full(before, np.nan)
    return {name: np.concatenate([lead, values]) for name, values in found.items()}
