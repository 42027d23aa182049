"""ADX, +DI and -DI 14 against Wilder's steps, and TA-Lib."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import talib

from tests.transform.indicators.series import (
    Floats,
    assert_agree,
    assert_first_at,
    made,
    on_every_series,
    series,
    true_ranges,
)

NAMES = ("adx_14", "plus_di_14", "minus_di_14")


def movements(frame: pd.DataFrame) -> tuple[list[float], list[float]]:
    rows = list(frame[["high", "low"]].itertuples(index=False, name=None))
    plus, minus = [], []
    for (high, low), (next_high, next_low) in pairwise(rows):
        up, down = next_high - high, low - next_low
        plus.append(up if up > down and up > 0 else 0.0)
        minus.append(down if down > up and down > 0 else 0.0)
    return plus, minus


def sums(values: list[float]) -> list[float]:
    """Wilder's sums by bar, from the 14th bar on: of 13 values, then less a fourteenth plus the next."""
    total = math.fsum(values[:13])
    found = [math.nan] * 13 + [total]
    for value in values[13:]:
        total = total - total / 14 + value
        found.append(total)
    return found


def wilder(frame: pd.DataFrame) -> dict[str, list[float]]:
    plus, minus = (sums(values) for values in movements(frame))
    spans = sums(true_ranges(frame))
    up = [100 * dm / span if span else math.nan for dm, span in zip(plus, spans, strict=True)]
    down = [100 * dm / span if span else math.nan for dm, span in zip(minus, spans, strict=True)]
    dx = [
        100 * abs(p - m) / (p + m) if not math.isnan(p) and p + m else math.nan
        for p, m in zip(plus, minus, strict=True)
    ]
    average = math.fsum(value for value in dx[14:28] if not math.isnan(value)) / 14
    adx = [math.nan] * 27 + [average if not math.isnan(dx[27]) else math.nan]
    for value in dx[28:]:
        if not math.isnan(value):
            average = (13 * average + value) / 14
        adx.append(math.nan if math.isnan(value) else average)
    lead = [math.nan] * 14
    return {"adx_14": adx, "plus_di_14": lead + up[14:], "minus_di_14": lead + down[14:]}


def of_ta_lib(frame: pd.DataFrame) -> dict[str, Floats]:
    prices = [frame[column].to_numpy() for column in ("high", "low", "close")]
    functions = (talib.ADX, talib.PLUS_DI, talib.MINUS_DI)
    return {name: function(*prices, 14) for name, function in zip(NAMES, functions, strict=True)}


@on_every_series
def test_is_wilders(name: str) -> None:
    found = series(name)
    for column, expected in wilder(found.frame).items():
        assert_agree(found.values(column), expected)


@on_every_series
def test_is_ta_libs(name: str) -> None:
    found = series(name)
    for column, expected in of_ta_lib(found.frame).items():
        assert_agree(found.values(column), expected)


@pytest.mark.parametrize(("column", "bar"), [("adx_14", 27), ("plus_di_14", 14), ("minus_di_14", 14)])
def test_is_null_until_there_are_enough_bars(column: str, bar: int) -> None:
    assert_first_at("sample btc 1h", column, bar)


def test_is_null_where_nothing_ever_moved() -> None:
    found = made([5.0] * 60)
    for column in NAMES:
        assert np.isnan(found.values(column)).all()
    # TA-Lib makes numbers of it.
    assert {values[-1] for values in of_ta_lib(found.frame).values()} == {0.0}


def test_ranges_without_direction_are_zero_di_and_no_adx() -> None:
    found = made([5.0] * 60, high=[6.0] * 60, low=[4.0] * 60)
    assert (found.values("plus_di_14")[14:] == 0).all()
    assert (found.values("minus_di_14")[14:] == 0).all()
    assert np.isnan(found.values("adx_14")).all()


def test_undefined_bars_within_the_seed_count_as_ta_lib_counts_them() -> None:
    closes = np.concatenate([np.full(22, 10.0), 10 + np.cumsum(np.random.default_rng(2).normal(0, 1, 60))])
    found = made(list(closes), high=list(closes + 1), low=list(closes - 1))
    of_ta = of_ta_lib(found.frame)["adx_14"]
    assert_agree(found.values("adx_14"), wilder(found.frame)["adx_14"])
    assert_agree(found.values("adx_14")[27:], of_ta[27:])


def test_goes_on_from_where_it_was_after_so_long_a_pause_that_the_sums_are_nothing() -> None:
    rng = np.random.default_rng(3)
    active = 100 + np.cumsum(rng.normal(0, 1, 80))
    closes = np.concatenate([active, np.full(12_000, active[-1]), active[-1] + np.cumsum(rng.normal(0, 1, 30))])
    found = made(list(closes), high=list(closes), low=list(closes))
    adx, state = found.values("adx_14"), found.values("state_adx_14")
    pause = slice(80 + 11_000, 80 + 12_000)
    assert np.isnan(adx[pause]).all()
    assert np.isnan(found.values("plus_di_14")[pause]).all()
    assert len(set(state[pause])) == 1
    # The first moves make DX 100, and pull the average a fourteenth of the way there.
    after = 80 + 12_000
    assert_agree(adx[after : after + 1], [(13 * state[after - 1] + 100) / 14])
