"""Momentum over 10 bars against its formula, and TA-Lib."""

from __future__ import annotations

import math

import numpy as np
import talib

from tests.transform.indicators.series import assert_agree, assert_first_at, made, on_every_series, series


@on_every_series
def test_is_the_difference(name: str) -> None:
    found = series(name)
    closes = found.frame["close"].tolist()
    expected = [after - before for before, after in zip(closes, closes[10:], strict=False)]
    assert_agree(found.values("mom_10"), [math.nan] * 10 + expected)


@on_every_series
def test_is_ta_libs(name: str) -> None:
    found = series(name)
    assert_agree(found.values("mom_10"), talib.MOM(found.frame["close"].to_numpy(), 10))


def test_is_null_until_there_are_enough_bars() -> None:
    assert_first_at("sample btc 1h", "mom_10", 10)


def test_negative_prices_have_one() -> None:
    assert_agree(made(list(np.arange(5.0, -8.0, -1.0))).values("mom_10")[10:], [-10.0] * 3)
