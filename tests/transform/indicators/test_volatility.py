"""Historical volatility against the standard library's deviation, and the bars of a year."""

from __future__ import annotations

import math
import statistics
from itertools import pairwise

import numpy as np
import pytest

from pipelines.transform.indicators import SeriesContext
from tests.transform.indicators.series import (
    assert_agree,
    assert_first_at,
    made,
    on_calendar,
    on_every_series,
    series,
)

# 365 days of 24 h, 260 of 24 h, 252 of 6.5 h.
YEARS = {
    ("BTCUSD", "1m"): 525_600,
    ("BTCUSD", "1h"): 8_760,
    ("BTCUSD", "1d"): 365,
    ("ETHBTC", "5m"): 105_120,
    ("LTCBTC", "5m"): 105_120,
    ("EURUSD", "1h"): 6_240,
    ("EURUSD", "1d"): 260,
    ("GBPUSD", "1m"): 374_400,
    ("AAPL", "1m"): 98_280,
    ("AAPL", "5m"): 19_656,
    ("AAPL", "4h"): 409.5,
    ("^TNX", "1d"): 252,
}


@pytest.mark.parametrize(("pair", "timeframe"), YEARS)
def test_bars_of_a_year(pair: str, timeframe: str) -> None:
    assert SeriesContext.of(pair, timeframe).bars_per_year == YEARS[pair, timeframe]


@pytest.mark.parametrize(("calendar", "hours"), [("XTKS", 5.0), ("XHKG", 5.5), ("XLON", 8.5), ("XNYS", 6.5)])
def test_lunch_is_no_trading_time(calendar: str, hours: float) -> None:
    assert on_calendar(calendar, "1h").bars_per_year == 252 * hours


@on_every_series
def test_is_the_annualised_sample_deviation(name: str) -> None:
    found = series(name)
    closes = found.frame["close"].tolist()
    year = YEARS[found.context.instrument.pair, found.context.timeframe.value]
    returns = [math.log(after / before) for before, after in pairwise(closes)]
    places = range(20, len(closes), 1 + len(closes) // 2000)
    expected = [statistics.stdev(returns[place - 20 : place]) * math.sqrt(year) for place in places]
    assert_agree(found.values("hist_volatility_20")[list(places)], expected)


def test_is_null_until_there_are_enough_bars() -> None:
    assert_first_at("sample btc 1h", "hist_volatility_20", 20)


def test_is_exactly_zero_at_a_constant_price() -> None:
    rng = np.random.default_rng(5)
    found = made([*(100 + rng.random(300)), *[100.0] * 30]).values("hist_volatility_20")
    assert (found[-9:] == 0).all()


def test_is_null_while_a_return_in_the_window_is() -> None:
    closes = [*np.linspace(1.0, 1.2, 30), -0.1, *np.linspace(1.0, 1.2, 30)]
    found = made(closes).values("hist_volatility_20")
    assert np.isnan(found[30:51]).all()
    assert not np.isnan(found[[29, 51]]).any()
