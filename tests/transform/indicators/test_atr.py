"""ATR 14 against Wilder's steps, and TA-Lib."""

from __future__ import annotations

import math

import numpy as np
import talib

from tests.transform.indicators.series import (
    assert_agree,
    assert_first_at,
    made,
    on_every_series,
    series,
    true_ranges,
)


@on_every_series
def test_is_wilders(name: str) -> None:
    found = series(name)
    ranges = true_ranges(found.frame)
    average = math.fsum(ranges[:14]) / 14
    expected = [math.nan] * 14 + [average]
    for value in ranges[14:]:
        average = (13 * average + value) / 14
        expected.append(average)
    assert_agree(found.values("atr_14"), expected)


@on_every_series
def test_is_ta_libs(name: str) -> None:
    found = series(name)
    prices = (found.frame[column].to_numpy() for column in ("high", "low", "close"))
    assert_agree(found.values("atr_14"), talib.ATR(*prices, 14))


def test_is_null_until_there_are_enough_bars() -> None:
    assert_first_at("sample btc 1h", "atr_14", 14)


def test_is_zero_at_a_constant_price_and_counts_a_leap_between_bars() -> None:
    found = made([5.0] * 20 + [19.0]).values("atr_14")
    assert_agree(found[14:], [0.0] * 6 + [1.0])


def test_negative_prices_have_a_range() -> None:
    closes = np.linspace(1.0, -1.0, 30)
    found = made(list(closes), high=list(closes + 0.5), low=list(closes - 0.5)).values("atr_14")
    assert_agree(found[14:], [1.0] * 16)
