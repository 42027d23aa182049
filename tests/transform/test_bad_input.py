"""Silver over all that goes wrong with data: null instead of a wrong number, plain messages, runs that converge."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyspark.sql import SparkSession

from pipelines.contracts import contract_for
from pipelines.edge import EdgeContext, validate
from pipelines.instruments import load_registry
from pipelines.storage import DeltaLakeManager
from pipelines.timeframes import Timeframe
from pipelines.transform.runner import run_dbt
from tests.transform.test_runner import (
    KEYS,
    SILVER,
    START,
    Workbench,
    assert_same,
    bars,
    decision,
    execution,
    land,
    records,
    restated,
    silver,
)

pytestmark = pytest.mark.spark

# How many bars must be there before a column has its first value.
FIRST_AT = {"sma_20": 20, "sma_50": 50, "sma_200": 200, "ema_12": 12, "ema_26": 26, "rsi_14": 15, "macd": 34,
            "bb_upper": 20, "adx_14": 28, "plus_di_14": 15, "atr_14": 15, "roc_10": 11, "hist_volatility_20": 21,
            "log_return": 2, "cumulative_return": 1, "obv": 1, "market_regime": 120}  # fmt: skip
HOUR = timedelta(hours=1)


def changed(rows: pa.Table, **columns: float | None) -> pa.Table:
    """The same value in all rows of some columns."""
    for name, value in columns.items():
        place = rows.column_names.index(name)
        rows = rows.set_column(place, name, pa.array([value] * rows.num_rows, rows.schema.field(name).type))
    return rows


def without(rows: pa.Table, first: int, last: int) -> pa.Table:
    return pa.concat_tables([rows.slice(0, first), rows.slice(last)])


def flat(asset: str, count: int) -> pa.Table:
    prices = dict.fromkeys(("open", "high", "low", "close"), 1.1)
    return changed(bars(asset, "1h", 0, count), **prices)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, spark: SparkSession) -> Workbench:
    """All cases in one lake, built with all tests of silver."""
    bench = Workbench(tmp_path_factory.mktemp("bad"))
    for rows in (
        bars("BTCUSD", "5m", 0, 60),
        bars("BTCUSD", "1h", 0, 240),
        bars("ADAUSD", "1h", 0, 5, seed=1),
        bars("XRPUSD", "1h", 0, 60, seed=2),
        without(bars("ETHUSD", "1h", 0, 300, seed=3), 100, 150),
        without(bars("ETHUSD", "5m", 0, 260, seed=4), 20, 200),
        changed(bars("SOLUSD", "1h", 0, 240, seed=5), volume=0.0),
        changed(bars("LTCBTC", "1h", 0, 40, seed=6), volume=None),
        flat("EURUSD", 240),
        bars("MSFT", "1h", 10, 1, seed=7),
        bars("AAPL", "5m", 10, 1, seed=8),
    ):
        land(bench.lake, rows)
    decisions = [
        decision("before any bar", -timedelta(days=9)),
        decision("at a timeframe without bars", 30 * HOUR, "4h"),
        decision("at a timeframe that is none", 30 * HOUR, "2h"),
        decision("moves in time", 30 * HOUR, "1h"),
        decision("moves to another asset", 30 * HOUR, "1h"),
        decision("no bars", 30 * HOUR, "1h") | {"asset_pair": "TSLA"},
        decision("one bar", 30 * HOUR, None) | {"asset_pair": "MSFT"},
        decision("in a gap", 130 * HOUR, "1h") | {"asset_pair": "ETHUSD"},
    ]
    bench.lake.append("raw_ai_decisions", records("raw_ai_decisions", decisions), "run")
    fills = [
        execution("by hand", HOUR, "BUY"),
        execution("nobody knows", 2 * HOUR, "SELL") | {"decision_id": "never made"},
        execution("no bars", HOUR, "BUY") | {"asset_pair": "TSLA"},
        execution("one bar", HOUR, "SELL") | {"asset_pair": "MSFT"},
    ]
    bench.lake.append("raw_trade_executions", records("raw_trade_executions", fills), "run")
    bench.run("build", "--select", *SILVER, "--exclude", "source:*", "resource_type:unit_test")
    return bench


@pytest.fixture(scope="module")
def tables(bench: Workbench) -> dict[str, pd.DataFrame]:
    return silver(bench.lake)


def series(tables: dict[str, pd.DataFrame], asset: str, timeframe: str = "1h") -> pd.DataFrame:
    rows = tables["market_data_enriched"]
    return rows[(rows["asset_pair"] == asset) & (rows["timeframe"] == timeframe)].reset_index(drop=True)


@pytest.mark.parametrize(("asset", "count"), [("ADAUSD", 5), ("XRPUSD", 60), ("MSFT", 1), ("BTCUSD", 240)])
def test_fewer_bars_than_needed_give_nulls(tables: dict[str, pd.DataFrame], asset: str, count: int) -> None:
    rows = series(tables, asset)
    assert len(rows) == count
    for column, first in FIRST_AT.items():
        assert rows[column].isna().sum() == min(first - 1, count), column
    np.testing.assert_allclose(rows["sma_20"], rows["close"].rolling(20).mean(), rtol=1e-12)
    np.testing.assert_allclose(rows["sma_50"], rows["close"].rolling(50).mean(), rtol=1e-12)


def test_no_value_is_nan_or_infinite(bench: Workbench, tables: dict[str, pd.DataFrame]) -> None:
    """pandas cannot tell NaN from null, Arrow can."""
    layer = DeltaLakeManager(f"{bench.lake.storage_path}/silver", bench.lake.settings)
    for name in tables:
        for column in layer.read_arrow(name).itercolumns():
            if pa.types.is_floating(column.type):
                assert np.isfinite(column.drop_null().to_numpy()).all(), name


def test_windows_are_of_bars_over_a_gap(tables: dict[str, pd.DataFrame]) -> None:
    rows = series(tables, "ETHUSD")
    assert len(rows) == 250
    steps = rows["timestamp"].diff().value_counts()
    assert steps.to_dict() == {pd.Timedelta(HOUR): 248, pd.Timedelta(51 * HOUR): 1}
    np.testing.assert_allclose(rows["sma_20"], rows["close"].rolling(20).mean(), rtol=1e-12)
    np.testing.assert_allclose(rows["log_return"], np.log(rows["close"] / rows["close"].shift()), rtol=1e-9, atol=1e-15)


def test_pulses_do_not_tick_in_a_gap(tables: dict[str, pd.DataFrame]) -> None:
    pulses = tables["multi_timeframe_analysis"].query("asset_pair == 'ETHUSD'")
    opens = series(tables, "ETHUSD", "5m")["timestamp"]
    assert pulses["timestamp"].tolist() == opens.tolist()
    assert len(opens) == 80
    # Hours went on meanwhile, so that what was known at the first bar after the gap is newer than the gap.
    after = pulses.iloc[20]
    assert after["closed_at_5m"] == START + timedelta(minutes=5 * 201)
    assert after["closed_at_1h"] == START + 16 * HOUR


def test_nothing_traded(tables: dict[str, pd.DataFrame]) -> None:
    zero, null = series(tables, "SOLUSD"), series(tables, "LTCBTC")
    assert (zero[["obv", "ad_line"]] == 0).all().all()
    assert zero["session_vwap"].isna().all()
    assert null[["obv", "ad_line", "session_vwap"]].isna().all().all()
    assert zero["sma_200"].notna().sum() == 41


def test_a_constant_price_moves_nothing(tables: dict[str, pd.DataFrame]) -> None:
    rows = series(tables, "EURUSD")
    settled = rows.iloc[199:]
    assert len(settled) == 41
    undefined = ["rsi_14", "percent_b", "plus_di_14", "minus_di_14", "adx_14", "market_regime"]
    assert rows[undefined].isna().all().all()
    still = ["macd", "macd_hist", "atr_14", "roc_10", "mom_10", "hist_volatility_20", "log_return", "cumulative_return",
             "drawdown"]  # fmt: skip
    np.testing.assert_allclose(settled[still], 0, atol=1e-12)
    np.testing.assert_allclose(settled[["sma_20", "sma_200", "ema_26", "bb_upper", "bb_lower", "running_max"]], 1.1)


def test_a_decision_without_bars_has_no_context(tables: dict[str, pd.DataFrame]) -> None:
    found = tables["decision_history"].set_index("decision_id")
    assert len(found) == 8
    for name in ("before any bar", "at a timeframe without bars", "at a timeframe that is none", "no bars"):
        assert found.loc[name, ["context_closed_at", "close", "rsi_14", "market_regime"]].isna().all(), name
    assert pd.isna(found.loc["no bars", "confluence_as_of"])
    assert found.loc["one bar", "context_closed_at"] == START + 11 * HOUR
    assert found.loc["one bar", ["rsi_14", "sma_50"]].isna().all()
    assert found.loc["in a gap", "context_closed_at"] == START + 100 * HOUR


def test_executions_need_no_decision_and_no_bar(tables: dict[str, pd.DataFrame]) -> None:
    lots = tables["trade_lifecycle"].set_index("entry_execution_id")
    assert lots.loc["by hand", ["status", "exit_decision_id"]].tolist() == ["closed", "never made"]
    assert lots.loc["by hand", "decision_id"] is None
    assert lots.loc["by hand", "net_pnl"] == -2.0
    assert lots.loc["no bars", "status"] == "open"
    assert lots.loc["no bars", ["mark", "mark_at", "open_pnl"]].isna().all()
    assert lots.loc["one bar", "mark"] == series(tables, "MSFT")["close"][0]


@pytest.mark.soak
def test_late_restated_and_moved_rows_end_as_a_refresh_would(bench: Workbench, tables: dict[str, pd.DataFrame]) -> None:
    """The first bar of each kind, a gap filled, an asset in the middle, records whose instant or asset was wrong."""
    restated(bench.lake, "BTCUSD", "1h", 0)
    restated(bench.lake, "BTCUSD", "5m", 0)
    land(bench.lake, changed(bars("MSFT", "1h", 10, 1, seed=7), volume=9.0))
    land(bench.lake, bars("ADAUSD", "1h", 5, 100, seed=1))
    land(bench.lake, bars("ETHUSD", "1h", 100, 50, seed=3))
    land(bench.lake, bars("AMZN", "1h", 50, 30, seed=9))
    land(bench.lake, bars("TSLA", "1h", 20, 5, seed=9))
    # Bars before the first one.
    land(bench.lake, bars("AAPL", "5m", 4, 6, seed=8))
    land(bench.lake, changed(bars("EURUSD", "1h", 100, 1), open=1.2, high=1.3, low=1.1, close=1.2))
    moved = [
        decision("moves in time", 40 * HOUR, "1h"),
        decision("moves to another asset", 30 * HOUR, "1h") | {"asset_pair": "ETHUSD"},
        decision("late", 3 * HOUR, "5m"),
    ]
    bench.lake.append("raw_ai_decisions", records("raw_ai_decisions", moved), "run")
    fills = [
        execution("by hand", HOUR, "BUY") | {"price": 990.0},
        execution("no bars", 50 * HOUR, "BUY") | {"asset_pair": "AMZN"},
        execution("late", timedelta(minutes=90), "BUY"),
    ]
    bench.lake.append("raw_trade_executions", records("raw_trade_executions", fills), "run")
    bench.run("run", "--select", *SILVER)
    found = silver(bench.lake)
    for name, before in tables.items():
        assert len(found[name]) != len(before) or name == "decision_history"
    assert found["decision_history"]["decision_id"].is_unique
    assert_same(found, bench.refreshed())


def test_the_edge_refuses_nan_and_says_so(bench: Workbench) -> None:
    rows = bars("BTCUSD", "1h", 0, 3)
    rows = rows.set_column(rows.column_names.index("high"), "high", pa.array([rows["high"][0].as_py(), math.nan, 1e4]))
    context = EdgeContext(
        contract_for("raw_market_data_1h"),
        "coinbase",
        datetime.now(UTC),
        load_registry().resolve("BTCUSD"),
        Timeframe.H1,
    )
    checked = validate(rows.select(["timestamp", "open", "high", "low", "close", "volume"]), context)
    assert checked.good.num_rows == 2
    assert [row.reason for row in checked.refused] == ["NaN high"]


@pytest.mark.soak
def test_nan_that_came_past_the_edge_stops_its_model_and_names_the_bar(bench: Workbench) -> None:
    """Nothing is written; once the bar is put right the next run goes on."""
    before = silver(bench.lake)
    at = START + 240 * HOUR
    land(bench.lake, changed(bars("BTCUSD", "1h", 240, 1), high=math.nan))
    done = run_dbt(["--quiet", "run", "--select", *SILVER], bench.lake, bench.folder / "dbt")
    status = {node.name: node for node in done.nodes}
    assert not done.ok
    assert (
        f"high is null, NaN or infinite in the bar of {at:%Y-%m-%d %H:%M:%S}" in status["market_data_enriched"].message
    )
    assert status["multi_timeframe_analysis"].status == "skipped"
    assert_same(silver(bench.lake), before)
    land(bench.lake, bars("BTCUSD", "1h", 240, 1))
    bench.run("run", "--select", *SILVER)
    rows = series(silver(bench.lake), "BTCUSD")
    assert rows["timestamp"].iloc[-1] == at
    np.testing.assert_allclose(rows["sma_200"], rows["close"].rolling(200).mean(), rtol=1e-12)


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory, spark: SparkSession) -> Workbench:
    """A lake with nothing at all."""
    return Workbench(tmp_path_factory.mktemp("empty"))


def everything(bench: Workbench) -> dict[str, pa.Table]:
    return {
        name: DeltaLakeManager(f"{bench.lake.storage_path}/{layer}", bench.lake.settings).read_arrow(name)
        for layer in ("silver", "gold")
        for name in bench.lake.layer(layer).names()
    }


@pytest.mark.soak
def test_of_nothing_every_table_is_there_and_empty(empty: Workbench) -> None:
    empty.run("run")
    found = everything(empty)
    assert {*KEYS, "mart_trading_performance", "mart_daily_portfolio_summary"} < set(found)
    assert {name: table.num_rows for name, table in found.items()} == dict.fromkeys(found, 0)


@pytest.mark.soak
def test_a_lake_with_executions_alone(empty: Workbench) -> None:
    fills = [execution("in", HOUR, "BUY"), execution("out", 30 * HOUR, "SELL") | {"price": 1010.0}]
    empty.lake.append("raw_trade_executions", records("raw_trade_executions", fills), "run")
    empty.run("run")
    found = everything(empty)
    assert {name for name, table in found.items() if not table.num_rows and not name.startswith("int_")} == {
        "market_data_enriched", "multi_timeframe_analysis", "decision_history", "mart_provider_attribution",
        "cross_asset_pairs", "crypto_equity_correlation", "yield_curve",
    }  # fmt: skip
    last = found["mart_daily_portfolio_summary"].sort_by("day").to_pylist()[-1]
    assert (last["realised_pnl"], last["balance"], last["trades"]) == (8.0, last["initial_balance"] + 8.0, 1)
