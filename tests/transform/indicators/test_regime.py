"""The market regime against its rule written out over the columns it reads."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.transform.indicators.series import Series, made, on_every_series, series

REGIMES = {"volatile", "trend", "range"}


def by_rule(found: Series) -> list[str | None]:
    volatility, adx = found.values("hist_volatility_20").tolist(), found.values("adx_14").tolist()
    regimes: list[str | None] = []
    for place, (now, index) in enumerate(zip(volatility, adx, strict=True)):
        before = volatility[max(place - 99, 0) : place]
        if len(before) < 99 or any(map(math.isnan, [*before, now, index])):
            regimes.append(None)
        elif sum(earlier < now * (1 - 1e-9) for earlier in before) >= 90:
            regimes.append("volatile")
        else:
            regimes.append("trend" if index >= 25 else "range")
    return regimes


@on_every_series
def test_is_the_rules(name: str) -> None:
    found = series(name)
    assert found.computed["market_regime"].to_pylist() == by_rule(found)


@pytest.mark.parametrize("name", ["sample btc 1h", "sample aapl 5m"])
def test_every_regime_occurs_and_none_is_rare(name: str) -> None:
    regimes = series(name).computed["market_regime"].drop_null().to_pylist()
    assert {*regimes} == REGIMES
    assert min(regimes.count(regime) for regime in REGIMES) > len(regimes) / 20


def test_is_null_until_there_are_enough_bars() -> None:
    valid = series("sample btc 1h").computed["market_regime"].is_valid().to_pylist()
    assert valid.index(True) == 119


def test_steady_growth_is_a_trend_and_a_burst_is_volatile() -> None:
    rng = np.random.default_rng(1)
    steps = np.concatenate([rng.normal(0.002, 0.001, 300), rng.normal(0.0, 0.05, 15)])
    closes = 100 * np.exp(np.cumsum(steps))
    found = made(list(closes), high=list(closes * 1.0005), low=list(closes * 0.9995))
    regimes = found.computed["market_regime"].to_pylist()
    assert regimes[200:300].count("trend") > 70
    assert {*regimes[-10:]} == {"volatile"}


def test_is_null_where_nothing_moved_and_where_returns_are_undefined() -> None:
    assert {*made([5.0] * 150).computed["market_regime"].to_pylist()} == {None}
    assert {*made(list(np.linspace(-9, -5, 150))).computed["market_regime"].to_pylist()} == {None}


def test_rounding_is_no_volatility() -> None:
    # The same 20 returns over and over: the deviation differs in its last digits only, one window in 20 the highest.
    cycle = np.random.default_rng(6).normal(100, 1, 20).tolist()
    closes = cycle * 20
    found = made(closes, high=[close + 1 for close in closes], low=[close - 1 for close in closes])
    assert len({*found.values("hist_volatility_20")[200:]}) > 1
    assert "volatile" not in found.computed["market_regime"].to_pylist()
