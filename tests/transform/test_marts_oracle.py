"""The oracle itself, on a book small enough to be worked out by hand."""

from __future__ import annotations

import statistics
from datetime import UTC, date, datetime, timedelta
from math import log, sqrt
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from tests.transform.marts_oracle import KEYS, Settings, marts
from tests.transform.sample_book import BARS, bar, contract_table

THURSDAY = datetime(2025, 3, 6, tzinfo=UTC)
SUNDAY = date(2025, 3, 9)
INITIAL = 1_000.0


def hour(number: int) -> datetime:
    return THURSDAY + timedelta(hours=number)


def fill(
    name: str, at: int, side: str, quantity: float, price: float, fee: float, decision: str | None
) -> dict[str, Any]:
    return {
        "execution_id": name, "order_id": f"o-{name}", "decision_id": decision, "asset_pair": "BTCUSD",
        "timestamp": hour(at), "side": side, "quantity": quantity, "price": price, "fee": fee, "provider": "desk",
    }  # fmt: skip


def decision(name: str, at: int, action: str, strategy: str, votes: list[tuple[str, str, float]]) -> dict[str, Any]:
    cast = [dict(zip(("provider", "action", "confidence"), vote, strict=True)) for vote in votes]
    return {
        "decision_id": name, "asset_pair": "BTCUSD", "timestamp": hour(at), "action": action, "confidence": 0.8,
        "strategy": strategy, "votes": cast, "provider": "desk",
    }  # fmt: skip


@pytest.fixture(scope="module")
def tiny() -> dict[str, pd.DataFrame]:
    executions = [
        fill("in", 10, "BUY", 2.0, 100.0, 1.0, "d1"),
        fill("flip", 30, "SELL", 3.0, 110.0, 3.0, None),
        fill("out", 84, "BUY", 1.0, 110.0, 0.0, None),
    ]
    decisions = [
        decision("d1", 9, "BUY", "voting", [("m", "BUY", 0.6), ("r", "BUY", 0.2), ("x", "SELL", 0.5)]),
        decision("d2", 90, "HOLD", "debate", []),
    ]
    bars = [
        bar("BTCUSD", "1h", hour(8), 99.0), bar("BTCUSD", "1h", hour(11), 105.0, "trend"),
        bar("BTCUSD", "1h", hour(46), 120.0, "volatile"),
        # It closes with Saturday.
        bar("BTCUSD", "1h", hour(71), 100.0, "range"),
    ]  # fmt: skip
    return marts(
        contract_table("raw_trade_executions", executions).to_pandas(),
        contract_table("raw_ai_decisions", decisions).to_pandas(),
        pa.Table.from_pylist(bars, schema=BARS).to_pandas(),
        Settings(initial_balance=INITIAL),
    )


def rows(table: pd.DataFrame, day: date = SUNDAY, **key: str) -> Any:
    found = table[table.day == day]
    for name, value in key.items():
        found = found[found[name] == value]
    assert len(found) == 1
    return found.iloc[0]


def check(row: Any, **expected: float | None) -> None:
    for name, value in expected.items():
        if value is None:
            assert pd.isna(row[name]), name
        else:
            assert row[name] == pytest.approx(value, rel=1e-12), name


def test_every_key_is_there_once_a_day(tiny: dict[str, pd.DataFrame]) -> None:
    assert {name: len(table) for name, table in tiny.items()} == {
        "mart_trading_performance": 2 * 4, "mart_daily_portfolio_summary": 4, "mart_provider_attribution": 3 * 4,
        "mart_ensemble_effectiveness": 4 * 4, "mart_market_regime_stats": 4 * 4,
    }  # fmt: skip
    for name, table in tiny.items():
        assert not table.duplicated(KEYS[name]).any()


def test_portfolio(tiny: dict[str, pd.DataFrame]) -> None:
    table = tiny["mart_daily_portfolio_summary"]
    assert table.known_at.tolist() == [hour(24), hour(48), hour(72), hour(90)]
    for number, expected in enumerate([
        {"balance": 1_000, "open_pnl": 9, "equity": 1_009, "cash": 799, "market_value": 210, "gross_exposure": 210,
         "realised_pnl": 0, "fees": 1, "executions": 1, "trades": 0, "long_positions": 1, "short_positions": 0,
         "daily_return": 0.009, "drawdown": 0},
        {"balance": 1_017, "open_pnl": -11, "equity": 1_006, "cash": 1_126, "market_value": -120, "gross_exposure": 120,
         "realised_pnl": 17, "fees": 3, "executions": 1, "trades": 1, "long_positions": 0, "short_positions": 1,
         "daily_return": 1_006 / 1_009 - 1, "drawdown": 3, "drawdown_fraction": 3 / 1_009},
        {"balance": 1_017, "open_pnl": 9, "equity": 1_026, "cash": 1_126, "market_value": -100, "gross_exposure": 100,
         "realised_pnl": 0, "fees": 0, "executions": 0, "trades": 0, "open_positions": 1, "open_lots": 1,
         "unmarked_positions": 0},
        {"balance": 1_016, "open_pnl": 0, "equity": 1_016, "cash": 1_016, "market_value": 0, "gross_exposure": 0,
         "realised_pnl": -1, "fees": 0, "executions": 1, "trades": 1, "open_positions": 0, "unconverted_fees": 0},
    ]):  # fmt: skip
        check(rows(table, date(2025, 3, 6 + number)), **expected)


def test_performance(tiny: dict[str, pd.DataFrame]) -> None:
    table = tiny["mart_trading_performance"]
    returns = [1_009 / 1_000 - 1, 1_006 / 1_009 - 1, 1_026 / 1_006 - 1, 1_016 / 1_026 - 1]
    mean = sum(returns) / 4
    below = sqrt((returns[1] ** 2 + returns[3] ** 2) / 4)
    for pair in ("ALL", "BTCUSD"):
        check(
            rows(table, asset_pair=pair), executions=3, trades=2, wins=1, losses=1, ties=0, win_rate=0.5,
            gross_profit=17, gross_loss=1, profit_factor=17, net_pnl=16, mean_return=(17 / 200 - 1 / 110) / 2,
            mean_holding_seconds=(20 + 54) / 2 * 3600, equity=1_016, periods_per_year=365,
            sharpe=sqrt(365) * mean / statistics.stdev(returns), sortino=sqrt(365) * mean / below,
            drawdown=10, drawdown_fraction=10 / 1_026, max_drawdown=10, max_drawdown_fraction=10 / 1_026,
            exposure_time=74 / 80, exposure_notional=(210 / 1_009 + 120 / 1_006 + 100 / 1_026 + 0) / 4,
        )  # fmt: skip
    check(
        rows(table, THURSDAY.date(), asset_pair="ALL"), trades=0, win_rate=None, profit_factor=None, net_pnl=0,
        mean_return=None, sharpe=None, sortino=None, exposure_time=1,
    )  # fmt: skip
    check(rows(table, date(2025, 3, 7), asset_pair="ALL"), trades=1, win_rate=1, profit_factor=None, gross_profit=17)


def test_attribution(tiny: dict[str, pd.DataFrame]) -> None:
    table = tiny["mart_provider_attribution"]
    check(rows(table, ai_provider="m"), decisions=1, agreed=1, trades=1, wins=1, net_pnl=17, attributed_pnl=12.75)
    check(rows(table, ai_provider="r"), trades=1, net_pnl=17, attributed_pnl=4.25, mean_confidence=0.2)
    check(
        rows(table, ai_provider="x"), buy_votes=0, sell_votes=1, agreement_rate=0, trades=0, net_pnl=0,
        attributed_pnl=0, opposed_trades=1, opposed_pnl=17,
    )  # fmt: skip
    check(rows(table, THURSDAY.date(), ai_provider="m"), decisions=1, trades=0)


def test_ensembles(tiny: dict[str, pd.DataFrame]) -> None:
    table = tiny["mart_ensemble_effectiveness"]
    check(
        rows(table, strategy="voting"), decisions=1, buy_decisions=1, acted_decisions=1, action_rate=1,
        mean_agreement=2 / 3, mean_confidence=0.8, trades=1, wins=1, net_pnl=17,
    )  # fmt: skip
    check(
        rows(table, strategy="debate"), decisions=1, hold_decisions=1, action_rate=None, mean_agreement=None, trades=0
    )
    check(rows(table, strategy="none"), decisions=0, mean_confidence=None, trades=1, losses=1, net_pnl=-1)
    check(rows(table, date(2025, 3, 8), strategy="debate"), decisions=0)


def test_regimes(tiny: dict[str, pd.DataFrame]) -> None:
    table = tiny["mart_market_regime_stats"]
    check(rows(table, regime="unknown"), bars=1, bar_share=0.25, mean_log_return=None, trades=1, net_pnl=17)
    check(rows(table, regime="trend"), bars=1, mean_log_return=log(105 / 99), trades=1, losses=1, net_pnl=-1)
    check(rows(table, regime="volatile"), bars=1, mean_log_return=log(120 / 105), trades=0)
    check(rows(table, regime="range"), bars=1, mean_log_return=log(100 / 120))
    check(rows(table, date(2025, 3, 7), regime="range"), bars=0, bar_share=0, mean_log_return=None)
