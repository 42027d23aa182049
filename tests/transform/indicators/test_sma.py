"""SMA 20, 50 and 200 against plain means and TA-Lib."""

from __future__ import annotations

import math

import numpy as np
import pytest
import talib

from tests.transform.indicators.series import assert_agree, assert_first_at, made, on_every_series, series, windows

PERIODS = (20, 50, 200)


@on_every_series
@pytest.mark.parametrize("period", PERIODS)
def test_is_the_mean_of_the_last_closes(name: str, period: int) -> None:
    found = series(name)
    expected = windows(found.frame["close"], period, lambda window: math.fsum(window) / period)
    assert_agree(found.values(f"sma_{period}"), expected)


@on_every_series
@pytest.mark.parametrize("period", PERIODS)
def test_is_ta_libs(name: str, period: int) -> None:
    found = series(name)
    assert_agree(found.values(f"sma_{period}"), talib.SMA(found.frame["close"].to_numpy(), period))


@pytest.mark.parametrize("period", PERIODS)
def test_is_null_until_there_are_enough_bars(period: int) -> None:
    assert_first_at("sample btc 1h", f"sma_{period}", period - 1)


def test_a_constant_price_is_its_own_mean() -> None:
    assert_agree(made([7.3] * 250).values("sma_200"), [math.nan] * 199 + [7.3] * 51)


def test_negative_prices_have_a_mean() -> None:
    assert_agree(made(list(np.linspace(-3, 3, 20))).values("sma_20")[-1:], [0.0])
