"""The accumulation/distribution line against Chaikin's formula, and TA-Lib."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import talib

from tests.transform.indicators.series import assert_agree, made, on_every_series, series


def chaikin(frame: pd.DataFrame) -> list[float]:
    total, started, found = 0.0, False, []
    for high, low, close, volume in frame[["high", "low", "close", "volume"]].itertuples(index=False, name=None):
        if high > low and not math.isnan(volume):
            total += (2 * close - low - high) / (high - low) * volume
        started = started or not math.isnan(volume)
        found.append(total if started else math.nan)
    return found


@on_every_series
def test_is_chaikins(name: str) -> None:
    found = series(name)
    assert_agree(found.values("ad_line"), chaikin(found.frame))


@on_every_series
def test_is_ta_libs(name: str) -> None:
    found = series(name)
    columns = [found.frame[column].to_numpy() for column in ("high", "low", "close", "volume")]
    if np.isnan(columns[-1]).all():
        assert np.isnan(found.values("ad_line")).all()
    else:
        assert_agree(found.values("ad_line"), talib.AD(*columns))


def test_a_bar_without_range_or_volume_adds_nothing() -> None:
    found = made(
        [2.0, 2.0, 1.0, 2.0, 2.0],
        high=[2.0, 2.0, 2.0, 2.0, 2.0],
        low=[1.0, 1.0, 1.0, 1.0, 2.0],
        volume=[None, 3.0, 1.0, 0.0, 9.0],
    )
    assert_agree(found.values("ad_line"), [math.nan, 3.0, 2.0, 2.0, 2.0])
