"""Wilder's relative strength index, rate of change and momentum."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import talib

from pipelines.transform.indicators.bars import Bars, Results
from pipelines.transform.indicators.smoothing import NOTHING, WILDER_AVERAGE, smoothed
from pipelines.transform.indicators.windows import lagged, ratio

_LAG = 10


def relative_strength(bars: Bars, last: Mapping[str, float] | None) -> Results:
    """Return RSI 14 and the averages behind it."""
    change = bars.close - lagged(bars.close, 1)
    raw = {"state_avg_gain_14": np.maximum(change, 0.0), "state_avg_loss_14": np.maximum(-change, 0.0)}
    averages = {
        name: smoothed(values, WILDER_AVERAGE, bars.known, None if last is None else last[name])
        for name, values in raw.items()
    }
    gain, loss = averages["state_avg_gain_14"], averages["state_avg_loss_14"]
    return {"rsi_14": 100 * ratio(gain, gain + loss, NOTHING), **averages}


def rates_of_change(bars: Bars) -> Results:
    """Return ROC and momentum over 10 bars."""
    base = lagged(bars.close, _LAG)
    return {
        # TA-Lib says 0 where the earlier price is zero, and turns the sign where it is below.
        "roc_10": np.where(base > 0, talib.ROC(bars.close, _LAG), np.nan),
        "mom_10": talib.MOM(bars.close, _LAG),
    }
