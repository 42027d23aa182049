from __future__ import annotations

import math
from datetime import date, timedelta
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.transform.performance import (
    DAYS,
    PERFORMANCE,
    Outcomes,
    daily_rate,
    daily_returns,
    drawdowns,
    performance_to_date,
    sharpe_to_date,
    sortino_to_date,
)  # fmt: skip
from pipelines.transform.trades import EXPOSURE, exposed_days
from tests.transform.marts_oracle import Settings, World, marts, sharpe_and_sortino
from tests.transform.sample_book import SampleBook, sample_book

INITIAL = 1_000.0
curves = st.lists(st.floats(-900.0, 4_000.0), min_size=1, max_size=40)
RATIOS = [name for name in PERFORMANCE.names if name != "day"]


def numbers(*values: float) -> Any:
    return np.array(values, dtype=np.float64)


def test_outcomes() -> None:
    made = Outcomes.of(numbers(10, -4, 0, 1e-13, 5, math.nan), numbers(100, 100, 100, 100, 50, 10))
    assert made == Outcomes(wins=2, losses=1, ties=2, gross_profit=15.0, gross_loss=4.0)
    assert (made.win_rate, made.profit_factor) == (2 / 3, 3.75)
    tied = Outcomes.of(numbers(0.0), numbers(1.0))
    assert (tied.ties, tied.win_rate, tied.profit_factor) == (1, None, None)
    won = Outcomes.of(numbers(1.0), numbers(1.0))
    assert (won.win_rate, won.profit_factor) == (1.0, None)
    assert Outcomes.of(numbers(), numbers()) == Outcomes(0, 0, 0, 0.0, 0.0)


def test_returns_need_something_to_be_earned_on() -> None:
    made = daily_returns(numbers(100, -1_000, -950, -1_010, -980), INITIAL)
    np.testing.assert_allclose(made, [0.1, -1.0, math.nan, -1.2, math.nan], rtol=1e-12)


def test_the_daily_rate_compounds_to_the_annual_one() -> None:
    assert (1 + daily_rate(0.05, 252)) ** 252 == pytest.approx(1.05)
    assert daily_rate(0.0, 365) == 0.0


@given(curves, st.sampled_from([252, 365]), st.sampled_from([0.0, 0.04]))
def test_ratios_are_those_of_the_book(pnl: list[float], periods: int, risk_free: float) -> None:
    returns = daily_returns(numbers(*pnl), INITIAL)
    sharpe, sortino = (ratio(returns, periods, risk_free) for ratio in (sharpe_to_date, sortino_to_date))
    for count in range(1, len(pnl) + 1):
        expected = sharpe_and_sortino([0.0, *pnl[:count]], INITIAL, periods, risk_free)
        # Near the limit of deviations either side of it may be right.
        if not math.isnan(expected["sharpe"]) and abs(expected["sharpe"]) < 1e9:
            assert sharpe[count - 1] == pytest.approx(expected["sharpe"], rel=1e-6, abs=1e-6)
        if not math.isnan(expected["sortino"]) and abs(expected["sortino"]) < 1e9:
            assert sortino[count - 1] == pytest.approx(expected["sortino"], rel=1e-6, abs=1e-6)
    assert math.isnan(sharpe[0])
    assert math.isnan(sortino[0])


def test_ratios_without_deviation_are_null() -> None:
    assert np.isnan(sharpe_to_date(numbers(0.01, 0.01, 0.01), 365)).all()
    assert np.isnan(sharpe_to_date(numbers(0.0, 0.0, 0.0), 365)).all()
    # Nothing below the target.
    assert np.isnan(sortino_to_date(numbers(0.01, 0.02, 0.0), 365)).all()
    grown = numbers(*(INITIAL * (1.01**day - 1) for day in range(1, 60)))
    assert np.isnan(sharpe_to_date(daily_returns(grown, INITIAL), 365)).all()


def test_ratios_are_null_from_a_return_on_that_is() -> None:
    for ratio in (sharpe_to_date, sortino_to_date):
        made = ratio(numbers(0.1, -0.2, math.nan, 0.1, -0.1), 365)
        assert np.isnan(made).tolist() == [True, False, True, True, True]


@given(curves)
def test_drawdowns_are_from_the_highest_to_date(pnl: list[float]) -> None:
    amounts, fractions = drawdowns(numbers(*pnl), INITIAL)
    for count, now in enumerate(pnl, start=1):
        peak = max([0.0, *pnl[:count]])
        assert amounts[count - 1] == peak - now
        assert fractions[count - 1] == pytest.approx((peak - now) / (INITIAL + peak))


def days_of(equity: list[float], *, start: date = date(2025, 3, 6), round_the_clock: bool = True) -> pa.Table:
    rows = [
        {
            "day": start + timedelta(days=number), "initial_balance": INITIAL, "pnl": value - INITIAL,
            "gross_exposure": 500.0, "exposed_seconds": 21_600.0, "elapsed_seconds": 86_400.0 * (number + 1),
            "round_the_clock": round_the_clock,
        }
        for number, value in enumerate(equity)
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, schema=DAYS)


def test_exposure() -> None:
    made = performance_to_date(days_of([1_000.0, 2_000.0])).to_pylist()
    assert [row["exposure_time"] for row in made] == [0.25, 0.25]
    assert [row["exposure_notional"] for row in made] == [0.5, 0.375]


def test_no_days_and_one_day() -> None:
    assert performance_to_date(DAYS.empty_table()).equals(PERFORMANCE.empty_table())
    (row,) = performance_to_date(days_of([1_100.0])).to_pylist()
    assert row["daily_return"] == pytest.approx(0.1)
    assert (row["sharpe"], row["sortino"], row["max_drawdown"]) == (None, None, 0.0)


def test_no_time_has_no_exposure() -> None:
    days = days_of([1_100.0])
    days = days.set_column(DAYS.get_field_index("elapsed_seconds"), DAYS.field("elapsed_seconds"), pa.array([0.0]))
    assert performance_to_date(days)["exposure_time"].to_pylist() == [None]


def test_a_ruined_book_has_no_ratios_any_more() -> None:
    made = performance_to_date(days_of([1_100.0, 900.0, -100.0, 300.0, 400.0])).to_pydict()
    assert [value is None for value in made["sharpe"]] == [True, False, False, True, True]
    assert [value is None for value in made["exposure_notional"]] == [False, False, True, True, True]
    assert [value is None for value in made["daily_return"]] == [False, False, False, True, False]
    assert made["max_drawdown"][-1] == 1_200.0


def test_a_book_that_rests_at_weekends_earns_on_working_days() -> None:
    # Thursday to Tuesday; the weekend's change is Monday's.
    equity = [1_010.0, 1_000.0, 1_001.0, 990.0, 1_020.0, 1_005.0]
    made = performance_to_date(days_of(equity, round_the_clock=False)).to_pydict()
    working = [0.0, 10.0, 0.0, 20.0, 5.0]
    for at, count in ((1, 2), (2, 2), (3, 2), (4, 3), (5, 4)):
        expected = sharpe_and_sortino(working[: count + 1], INITIAL, 252, 0.0)
        assert made["sharpe"][at] == pytest.approx(expected["sharpe"], rel=1e-12)
        assert made["sortino"][at] == pytest.approx(expected["sortino"], rel=1e-12)
    assert made["max_drawdown"] == pytest.approx([0.0, 10.0, 10.0, 20.0, 20.0, 20.0])
    on_saturday = performance_to_date(days_of([1_010.0, 1_020.0], start=date(2025, 3, 8), round_the_clock=False))
    assert on_saturday["sharpe"].to_pylist() == [None, None]


@given(
    st.lists(st.integers(-100, 5_000).map(float), min_size=1, max_size=20),
    st.booleans(),
    st.randoms(use_true_random=False),
)
def test_no_later_day_moves_an_earlier_one(equity: list[float], always: bool, random: Any) -> None:
    days = days_of(equity, round_the_clock=always)
    whole = performance_to_date(days)
    order = list(range(len(equity)))
    random.shuffle(order)
    assert performance_to_date(days.take(pa.array(order))).equals(whole)
    for count in range(1, len(equity) + 1):
        assert performance_to_date(days.slice(0, count)).equals(whole.slice(0, count))


@cache
def expected() -> tuple[SampleBook, dict[str, pd.DataFrame]]:
    book = sample_book()
    return book, marts(*frames(book), settings())


def settings() -> Settings:
    return Settings(initial_balances={"BTC": 2.0}, initial_balance=1_000_000.0, risk_free=0.03)


def frames(book: SampleBook) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    return book.executions.to_pandas(), book.decisions.to_pandas(), book.bars.to_pandas()


def test_the_sample_book_agrees_with_the_oracle() -> None:
    book, tables = expected()
    world = World(*frames(book), settings())
    last = world.as_of(world.days()[-1])
    performance, portfolio = tables["mart_trading_performance"], tables["mart_daily_portfolio_summary"]
    keys = ["book", "quote_currency"]
    compared = 0
    for (name, currency), rows in performance[performance.asset_pair == "ALL"].groupby(keys):
        own = last.lots[(last.lots.book == name) & (last.lots.quote_currency == currency)]
        spans = own[["opened_at", "closed_at"]].assign(closed_at=own.closed_at.fillna(last.known_at))
        exposed = exposed_days(pa.Table.from_pandas(spans, schema=EXPOSURE, preserve_index=False)).to_pandas()
        days = rows.merge(portfolio, on=["day", *keys], suffixes=("", "_2")).merge(exposed, on="day", how="left")
        made = performance_to_date(
            pa.Table.from_pandas(
                days.assign(
                    exposed_seconds=days.exposed_seconds.fillna(0.0),
                    elapsed_seconds=(days.known_at - own.opened_at.min()).dt.total_seconds(),
                    round_the_clock=days.periods_per_year == 365,
                ),
                schema=DAYS, preserve_index=False,
            ),
            settings().risk_free,
        ).to_pandas()  # fmt: skip
        pd.testing.assert_frame_equal(
            made[["day", *RATIOS]], days[["day", *RATIOS]], check_dtype=False, rtol=1e-9, atol=1e-9
        )
        compared += len(days)
    assert compared > 60


def test_the_oracle_adds_up() -> None:
    _, tables = expected()
    summary = tables["mart_daily_portfolio_summary"]
    np.testing.assert_allclose(summary.balance + summary.open_pnl, summary.equity, rtol=1e-12, atol=1e-6)
    performance = tables["mart_trading_performance"]
    last = performance[performance.day == performance.day.max()]
    ensembles = tables["mart_ensemble_effectiveness"]
    regimes = tables["mart_market_regime_stats"]
    for name in ("trades", "wins", "losses", "ties", "unpriced_trades", "net_pnl"):
        of_books = last[last.asset_pair == "ALL"][name].sum()
        for other in (last[last.asset_pair != "ALL"], ensembles[ensembles.day == ensembles.day.max()],
                      regimes[regimes.day == regimes.day.max()]):  # fmt: skip
            assert other[name].sum() == pytest.approx(of_books, rel=1e-9)
    assert (last.ties > 0).any()
    assert (last.unpriced_trades > 0).any()
    assert (summary.unmarked_positions > 0).any()
    assert (summary.unconverted_fees > 0).any()
