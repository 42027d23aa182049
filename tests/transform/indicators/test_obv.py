"""On-balance volume against Granville's steps, and TA-Lib."""

from __future__ import annotations

import math

import numpy as np
import talib

from tests.transform.indicators.series import assert_agree, made, on_every_series, series


def granville(closes: list[float], volumes: list[float]) -> list[float]:
    total, found = 0.0, []
    started = False
    for place, (close, volume) in enumerate(zip(closes, volumes, strict=True)):
        amount = 0.0 if math.isnan(volume) else volume
        if place == 0 or close > closes[place - 1]:
            total += amount
        elif close < closes[place - 1]:
            total -= amount
        started = started or not math.isnan(volume)
        found.append(total if started else math.nan)
    return found


@on_every_series
def test_is_granvilles(name: str) -> None:
    found = series(name)
    assert_agree(found.values("obv"), granville(found.frame["close"].tolist(), found.frame["volume"].tolist()))


@on_every_series
def test_is_ta_libs(name: str) -> None:
    found = series(name)
    volumes = found.frame["volume"].to_numpy()
    if np.isnan(volumes).all():
        assert np.isnan(found.values("obv")).all()
    else:
        assert_agree(found.values("obv"), talib.OBV(found.frame["close"].to_numpy(), volumes))


def test_starts_with_the_first_bar() -> None:
    assert_agree(made([5.0], volume=[3.0]).values("obv"), [3.0])


def test_a_bar_without_volume_adds_nothing() -> None:
    found = made([1, 2, 3, 2, 1, 2], volume=[None, None, 4.0, None, 0.0, 1.0])
    assert_agree(found.values("obv"), [math.nan, math.nan, 4.0, 4.0, 4.0, 5.0])


def test_a_constant_price_adds_nothing() -> None:
    assert_agree(made([5.0] * 4, volume=[3.0] * 4).values("obv"), [3.0] * 4)
