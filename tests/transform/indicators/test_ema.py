"""EMA 12 and 26 against the recursion written out, and TA-Lib."""

from __future__ import annotations

import pytest
import talib

from tests.transform.indicators.series import assert_agree, assert_first_at, ema, made, on_every_series, series

PERIODS = (12, 26)


@on_every_series
@pytest.mark.parametrize("period", PERIODS)
def test_is_the_recursion_from_the_mean_of_the_first_closes(name: str, period: int) -> None:
    found = series(name)
    assert_agree(found.values(f"ema_{period}"), ema(found.frame["close"], period))


@on_every_series
@pytest.mark.parametrize("period", PERIODS)
def test_is_ta_libs(name: str, period: int) -> None:
    found = series(name)
    assert_agree(found.values(f"ema_{period}"), talib.EMA(found.frame["close"].to_numpy(), period))


@pytest.mark.parametrize("period", PERIODS)
def test_is_null_until_there_are_enough_bars(period: int) -> None:
    assert_first_at("sample btc 1h", f"ema_{period}", period - 1)


def test_a_constant_price_is_its_own_mean() -> None:
    assert_agree(made([7.3] * 30).values("ema_26")[25:], [7.3] * 5)
