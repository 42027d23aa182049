"""Bollinger bands, width and %B against their definition, and the bands against TA-Lib."""

from __future__ import annotations

import math

import numpy as np
import pytest
import talib

from tests.transform.indicators.series import (
    Floats,
    assert_agree,
    assert_first_at,
    made,
    on_every_series,
    series,
    windows,
)

BANDS = ("bb_upper", "bb_middle", "bb_lower")


def deviation(window: list[float]) -> float:
    mean = math.fsum(window) / 20
    return math.sqrt(math.fsum((value - mean) ** 2 for value in window) / 20)


def percent_b(window: list[float]) -> float:
    # Measured from the close, so that the definition itself loses nothing to rounding.
    spread = deviation(window)
    below = math.fsum(value - window[-1] for value in window) / 20
    return (2 * spread - below) / (4 * spread) if max(window) > min(window) else math.nan


@on_every_series
def test_is_bollingers(name: str) -> None:
    found = series(name)
    closes = found.frame["close"]
    middle = np.array(windows(closes, 20, lambda window: math.fsum(window) / 20))
    spread = np.array(windows(closes, 20, deviation))
    assert_agree(found.values("bb_middle"), middle)
    assert_agree(found.values("bb_upper"), middle + 2 * spread)
    assert_agree(found.values("bb_lower"), middle - 2 * spread)
    assert_agree(found.values("bb_width"), 4 * spread / middle)
    assert_agree(found.values("percent_b"), windows(closes, 20, percent_b))


@on_every_series
def test_is_ta_libs(name: str) -> None:
    found = series(name)
    for column, expected in zip(BANDS, talib.BBANDS(found.frame["close"].to_numpy(), 20, 2, 2), strict=True):
        assert_agree(found.values(column), expected)


@pytest.mark.parametrize("column", [*BANDS, "bb_width", "percent_b"])
def test_is_null_until_there_are_enough_bars(column: str) -> None:
    assert_first_at("sample btc 1h", column, 19)


@pytest.mark.parametrize("price", [0.1, 40_123.45, 1e-7])
def test_a_constant_price_has_bands_of_exactly_no_width_and_no_percent_b(price: float) -> None:
    rng = np.random.default_rng(5)
    found = made([*(price * (1 + rng.random(300))), *[price] * 25])
    flat = slice(-6, None)
    for column in BANDS:
        assert (found.values(column)[flat] == price).all()
    assert (found.values("bb_width")[flat] == 0).all()
    assert np.isnan(found.values("percent_b")[flat]).all()


def test_small_moves_far_from_zero_lose_nothing() -> None:
    steps: Floats = np.random.default_rng(7).integers(0, 4, 400).astype(float)
    far, near = made(list(2.0**20 + steps)), made(list(2.0**4 + steps))
    assert_agree(far.values("percent_b"), near.values("percent_b"))


def test_width_is_null_unless_the_middle_is_above_zero() -> None:
    found = made(list(np.linspace(-5.0, -1.0, 25)))
    assert np.isnan(found.values("bb_width")).all()
    assert not np.isnan(found.values("percent_b")[19:]).any()
