"""Log and cumulative return against the standard library."""

from __future__ import annotations

import math
from itertools import pairwise

from tests.transform.indicators.series import assert_agree, made, on_every_series, series


@on_every_series
def test_log_return(name: str) -> None:
    found = series(name)
    closes = found.frame["close"].tolist()
    expected = [math.log(after) - math.log(before) for before, after in pairwise(closes)]
    assert_agree(found.values("log_return"), [math.nan, *expected])


@on_every_series
def test_cumulative_return_compounds_every_bar(name: str) -> None:
    found = series(name)
    closes = found.frame["close"].tolist()
    grown, expected = 1.0, [0.0]
    for before, after in pairwise(closes):
        grown *= after / before
        expected.append(grown - 1)
    assert_agree(found.values("cumulative_return"), expected)


def test_log_return_is_null_at_prices_not_above_zero() -> None:
    found = made([1.0, 0.0, 1.0, -1.0, -2.0, 1.0, math.e])
    assert_agree(found.values("log_return"), [math.nan] * 6 + [1.0])


def test_cumulative_return_is_null_unless_the_first_price_is_above_zero() -> None:
    for first in (0.0, -1.0):
        assert found_nulls(made([first, 1.0, 2.0]).values("cumulative_return")) == 3
    assert_agree(made([2.0, 0.0, -1.0]).values("cumulative_return"), [0.0, -1.0, -1.5])


def test_one_bar() -> None:
    found = made([2.0])
    assert_agree(found.values("log_return"), [math.nan])
    assert_agree(found.values("cumulative_return"), [0.0])


def found_nulls(values: object) -> int:
    return sum(math.isnan(value) for value in values)  # type: ignore[attr-defined]
