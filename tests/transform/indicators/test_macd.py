"""MACD 12/26/9 against Appel's definition with TA-Lib's seeds, and TA-Lib."""

from __future__ import annotations

import math

import numpy as np
import pytest
import talib

from tests.transform.indicators.series import assert_agree, assert_first_at, ema, made, on_every_series, series

NAMES = ("macd", "macd_signal", "macd_hist")


def appel(closes: np.ndarray) -> tuple[list[float], list[float], list[float]]:
    # Both means start at the 26th bar: the shorter from the 12 closes before it.
    slow, fast = ema(closes, 26)[25:], ema(closes[14:], 12)[11:]
    line = [short - long for short, long in zip(fast, slow, strict=True)]
    signal = ema(line, 9)
    lead = [math.nan] * 33
    return (
        lead + line[8:],
        lead + signal[8:],
        lead + [value - mean for value, mean in zip(line[8:], signal[8:], strict=True)],
    )


@on_every_series
def test_is_appels(name: str) -> None:
    found = series(name)
    for column, expected in zip(NAMES, appel(found.frame["close"].to_numpy()), strict=True):
        assert_agree(found.values(column), expected)


@on_every_series
def test_is_ta_libs(name: str) -> None:
    found = series(name)
    for column, expected in zip(NAMES, talib.MACD(found.frame["close"].to_numpy(), 12, 26, 9), strict=True):
        assert_agree(found.values(column), expected)


@pytest.mark.parametrize("column", NAMES)
def test_is_null_until_there_are_enough_bars(column: str) -> None:
    assert_first_at("sample btc 1h", column, 33)


def test_is_zero_at_a_constant_price() -> None:
    assert_agree(made([7.3] * 40).values("macd")[33:], [0.0] * 7)
