"""Rate of change over 10 bars against its formula, and TA-Lib."""

from __future__ import annotations

import math

import numpy as np
import talib

from tests.transform.indicators.series import assert_agree, assert_first_at, made, on_every_series, series


@on_every_series
def test_is_the_relative_change_in_percent(name: str) -> None:
    found = series(name)
    closes = found.frame["close"].tolist()
    expected = [100 * (after - before) / before for before, after in zip(closes, closes[10:], strict=False)]
    assert_agree(found.values("roc_10"), [math.nan] * 10 + expected)


@on_every_series
def test_is_ta_libs(name: str) -> None:
    found = series(name)
    assert_agree(found.values("roc_10"), talib.ROC(found.frame["close"].to_numpy(), 10))


def test_is_null_until_there_are_enough_bars() -> None:
    assert_first_at("sample btc 1h", "roc_10", 10)


def test_is_null_unless_the_earlier_price_was_above_zero() -> None:
    closes = [-1.0, 0.0, 2.0, *[1.0] * 7, 4.0, 4.0, 1.0]
    assert_agree(made(closes).values("roc_10")[10:], [math.nan, math.nan, -50.0])
    # TA-Lib would say that yields fell by 500 % and that nothing happened.
    assert talib.ROC(np.array(closes), 10)[10:12].tolist() == [-500.0, 0.0]


def test_a_constant_price_does_not_change() -> None:
    assert_agree(made([7.3] * 15).values("roc_10")[10:], [0.0] * 5)
