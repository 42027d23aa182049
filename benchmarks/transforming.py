"""One contestant of the transform benchmarks in a process of its own: does one task and prints one JSON line.

`reference` is what a competent user would write by hand: TA-Lib in `applyInArrow`, written to a Delta table of the same
layout and the same columns. It neither deduplicates nor can it go on from where it ended.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import talib

from benchmarks.bars import ASSETS, MINUTES, START, bars
from pipelines.config import Settings
from pipelines.contracts import contract_for
from pipelines.transform.functions import BAR_DDL
from pipelines.transform.indicators import COLUMNS, ddl

TABLE = "market_data_enriched"
BARS = "raw_market_data_1m"
_LAYOUT = ["timeframe", "asset_pair", "partition_date"]
_AT_ONCE, _NOON, _TREND = 30, 12, 25


def settings_of(lake: Path, *, long: bool = True) -> Settings:
    """Return the settings of every contestant: both JIT compilers for a long computation, or else the default."""
    return Settings.model_validate(
        {
            "delta_lake": {"storage_path": str(lake)},
            "storage": {"engine": "embedded"},
            "dlq": {"path": str(lake / "dlq")},
            "spark": {"java_options": ""} if long else {},
        }
    )


def manager_of(lake: Path, *, long: bool = True) -> Any:  # noqa: ANN401 - imported late
    """Return the lake."""
    from pipelines.storage import DeltaLakeManager

    return DeltaLakeManager(lake, settings_of(lake, long=long))


def seed(lake: Path, days: int) -> dict[str, Any]:
    """Land minute bars alone in bronze."""
    manager, rows = manager_of(lake), 0
    for first in range(0, days, _AT_ONCE):
        rows += manager.append(BARS, bars(min(_AT_ONCE, days - first), first), f"day-{first}").rows
    return {"rows": rows}


def history(lake: Path, days: int) -> dict[str, Any]:
    """Land bars of all timeframes, decisions and executions, and build silver and gold."""
    manager = manager_of(lake)
    for first in range(0, days, _AT_ONCE):
        _land(manager, first, min(_AT_ONCE, days - first))
    manager.spark().range(10).count()
    return {**_transform(manager, lake), "rows": _rows(manager)}


def increment(lake: Path, days: int) -> dict[str, Any]:
    """Land one more day and bring silver and gold up to date."""
    manager = manager_of(lake, long=False)
    before = _rows(manager)
    _land(manager, days, 1)
    manager.spark().range(10).count()
    return {**_transform(manager, lake), "rows": _rows(manager) - before}


def nothing(lake: Path, _days: int) -> dict[str, Any]:
    """Bring up to date what already is."""
    return {**_transform(manager_of(lake, long=False), lake), "rows": 0}


def _transform(manager: Any, lake: Path) -> dict[str, Any]:  # noqa: ANN401 - imported late
    from pipelines.transform.build import Request, transform

    clock = time.perf_counter()
    done = transform(Request(), manager, lake / "dbt")
    seconds = time.perf_counter() - clock
    wrong = [node.name for node in done.nodes if not node.ok]
    return {"seconds": seconds, "wrong": wrong, "nodes": {node.name: node.seconds for node in done.nodes}}


def _rows(manager: Any) -> int:  # noqa: ANN401 - imported late
    return int(manager.layer("silver").rows(TABLE))


def _land(manager: Any, first: int, days: int) -> None:  # noqa: ANN401 - imported late
    run_id = f"day-{first}"
    for timeframe in MINUTES:
        manager.append(f"raw_market_data_{timeframe}", bars(days, first, timeframe), run_id)
    manager.append("raw_ai_decisions", _records("raw_ai_decisions", _decisions(first, days)), run_id)
    manager.append("raw_trade_executions", _records("raw_trade_executions", _fills(first, days)), run_id)


def _records(table: str, rows: list[dict[str, Any]]) -> pa.Table:
    columns = [column for column in contract_for(table).columns if column.provided != "storage"]
    return pa.table({c.name: pa.array([row.get(c.name) for row in rows], c.arrow_type) for c in columns})


def _decisions(first: int, days: int) -> list[dict[str, Any]]:
    """Four a day and asset."""
    return [
        {"decision_id": f"{asset}-{day}-{hour}", "asset_pair": asset, "timestamp": _hour(day, hour),
         "action": "BUY" if hour < _NOON else "SELL", "confidence": 0.7, "strategy": "voting", "timeframe": "1h",
         "provider": "files"}
        for asset in ASSETS for day in range(first, first + days) for hour in (3, 9, 15, 21)
    ]  # fmt: skip


def _fills(first: int, days: int) -> list[dict[str, Any]]:
    """In and out again each day, of each asset."""
    return [
        {"execution_id": f"{asset}-{day}-{hour}", "order_id": f"{asset}-{day}-{hour}", "asset_pair": asset,
         "decision_id": f"{asset}-{day}-{hour}", "timestamp": _hour(day, hour, 1), "status": "filled", "quantity": 1.0,
         "side": "BUY" if hour < _NOON else "SELL", "price": 100.0 + hour, "fee": 0.1, "fee_currency": "USD",
         "provider": "desk"}
        for asset in ASSETS for day in range(first, first + days) for hour in (3, 15)
    ]  # fmt: skip


def _hour(day: int, hour: int, minute: int = 0) -> datetime:
    return START + timedelta(days=day, hours=hour, minutes=minute)


def reference(lake: Path, _days: int) -> dict[str, Any]:
    """Compute every column by TA-Lib, or as simply as numpy can, and write them."""
    from pipelines.session import get_spark

    spark = get_spark(settings_of(lake))
    spark.range(10).count()
    clock = time.perf_counter()
    names = ", ".join(part.split()[0] for part in BAR_DDL.split(", "))
    source = spark.read.format("delta").load(str(lake / BARS)).selectExpr(*names.split(", "))
    frame = source.groupBy("asset_pair", "timeframe").applyInArrow(_by_talib, f"{BAR_DDL}, {ddl()}")
    frame = frame.selectExpr("*", "cast(trunc(timestamp, 'month') as date) as partition_date")
    writer = frame.write.format("delta").partitionBy(*_LAYOUT)
    writer.option("delta.dataSkippingStatsColumns", "timestamp,ingested_at").save(str(lake / "reference"))
    seconds = time.perf_counter() - clock
    return {"seconds": seconds, "rows": spark.read.format("delta").load(str(lake / "reference")).count()}


def _by_talib(rows: pa.Table) -> pa.Table:
    rows = rows.sort_by("timestamp")
    high, low, close, volume = (rows[name].to_numpy() for name in ("high", "low", "close", "volume"))
    found = dict(_indicators(high, low, close, volume))
    for column in COLUMNS:
        # What only a later run would need has to be written as well: any column will do.
        values = found.get(column.name, found["ema_12"])
        values = values if isinstance(values, pa.Array) else pa.array(values, from_pandas=True)
        rows = rows.append_column(column.name, values)
    return rows


def _indicators(high: Any, low: Any, close: Any, volume: Any) -> dict[str, Any]:  # noqa: ANN401 - arrays
    macd, signal, hist = talib.MACD(close, 12, 26, 9)
    upper, middle, lower = talib.BBANDS(close, 20, 2, 2)
    returns = np.diff(np.log(close), prepend=np.nan)
    volatility = talib.STDDEV(np.nan_to_num(returns), 20) * np.sqrt(525_600)
    typical = (high + low + close) / 3
    running = np.maximum.accumulate(close)
    adx = talib.ADX(high, low, close, 14)
    regime = np.where(adx > _TREND, "trend", np.where(volatility > np.nanmedian(volatility), "volatile", "range"))
    return {
        "sma_20": talib.SMA(close, 20), "sma_50": talib.SMA(close, 50), "sma_200": talib.SMA(close, 200),
        "ema_12": talib.EMA(close, 12), "ema_26": talib.EMA(close, 26), "rsi_14": talib.RSI(close, 14),
        "macd": macd, "macd_signal": signal, "macd_hist": hist,
        "bb_upper": upper, "bb_middle": middle, "bb_lower": lower, "bb_width": (upper - lower) / middle,
        "percent_b": (close - lower) / (upper - lower), "adx_14": adx,
        "plus_di_14": talib.PLUS_DI(high, low, close, 14), "minus_di_14": talib.MINUS_DI(high, low, close, 14),
        "atr_14": talib.ATR(high, low, close, 14), "roc_10": talib.ROC(close, 10), "mom_10": talib.MOM(close, 10),
        "hist_volatility_20": volatility, "obv": talib.OBV(close, volume),
        "ad_line": talib.AD(high, low, close, volume),
        "session_vwap": np.cumsum(typical * volume) / np.cumsum(volume), "log_return": returns,
        "cumulative_return": close / close[0] - 1, "drawdown": close / running - 1, "running_max": running,
        "market_regime": pa.array(regime),
    }  # fmt: skip


def refresh(lake: Path, _days: int) -> dict[str, Any]:
    """Make the table of bars with indicators as a whole."""
    from pipelines.transform.runner import run_dbt

    manager = manager_of(lake)
    manager.spark().range(10).count()
    clock = time.perf_counter()
    done = run_dbt(["--quiet", "run", "--select", TABLE, "--full-refresh"], manager, lake / "dbt")
    seconds = time.perf_counter() - clock
    node = next(node for node in done.nodes if node.name == TABLE)
    rows = manager.spark().read.format("delta").load(str(lake / "silver" / TABLE)).count()
    return {"seconds": node.seconds, "whole": seconds, "rows": rows if done.ok else -1}


TASKS: dict[str, Callable[[Path, int], dict[str, Any]]] = {
    "seed": seed, "reference": reference, "refresh": refresh, "history": history, "increment": increment,
    "nothing": nothing,
}  # fmt: skip


def main() -> None:
    """Read the arguments, do the task, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--lake", type=Path, required=True)
    parser.add_argument("--days", type=int, required=True)
    given = parser.parse_args()
    print(json.dumps(TASKS[given.task](given.lake, given.days)))


if __name__ == "__main__":
    main()
