"""The sample book in a lake, with finer bars than it has itself: for tests that build all models out of it."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.contracts import contract_for
from pipelines.storage import DeltaLakeManager
from pipelines.timeframes import Timeframe
from pipelines.transform.runner import run_dbt
from tests.conftest import make_settings
from tests.transform.sample_book import BARS, PRICES, START, SampleBook

VARIABLES = {"initial_balances": {"BTC": 2.0}, "initial_balance": 1_000_000, "risk_free_rate": 0.03}
# Asset, timeframe, begin and end: around the tenth day, in the middle of bars of every timeframe.
FINE = (
    ("BTCUSD", "1m", timedelta(days=9, hours=11), timedelta(days=9, hours=15)),
    ("BTCUSD", "5m", timedelta(days=8, hours=12), timedelta(days=10)),
    ("ETHUSD", "5m", timedelta(days=9), timedelta(days=10)),
    ("BTCUSD", "15m", timedelta(days=8), timedelta(days=11)),
    ("ETHUSD", "1d", timedelta(days=0), timedelta(days=15)),
)


def fine_bars() -> pa.Table:
    """Bars of the finer timeframes and of days, in the columns of `BARS`."""
    found = []
    for number, (pair, timeframe, begin, end) in enumerate(FINE):
        step = Timeframe(timeframe).step
        count = (end - begin) // step
        close = PRICES[pair] * np.exp(np.cumsum(np.random.default_rng(number).normal(0, 0.002, count)))
        opened = np.concatenate([[PRICES[pair]], close[:-1]])
        values = {
            "asset_pair": [pair] * count, "timeframe": [timeframe] * count,
            "timestamp": [START + begin + place * step for place in range(count)],
            "open": opened, "high": np.maximum(opened, close), "low": np.minimum(opened, close), "close": close,
            "volume": np.arange(count) % 5 + 1.0, "regime": [None] * count,
        }  # fmt: skip
        found.append(pa.table([values[name] for name in BARS.names], schema=BARS))
    return pa.concat_tables(found)


def landed(rows: pa.Table, table_name: str, **same: object) -> pa.Table:
    """Rows in the columns that a table is landed in; what they lack is the same everywhere or null."""
    columns = [column for column in contract_for(table_name).columns if column.provided != "storage"]
    return pa.table(
        {
            column.name: rows[column.name].cast(column.arrow_type)
            if column.name in rows.column_names
            else pa.array([same.get(column.name)] * rows.num_rows, column.arrow_type)
            for column in columns
        }
    )


def land_bars(lake: DeltaLakeManager, bars: pa.Table, provider: str = "coinbase") -> None:
    """Land bars of any timeframes, in the columns of `BARS`."""
    for timeframe in pc.unique(bars["timeframe"]).to_pylist():
        table_name = f"raw_market_data_{timeframe}"
        rows = bars.filter(pc.equal(bars["timeframe"], timeframe))
        rows = landed(rows, table_name, provider=provider, price_side="trade", is_adjusted=False, is_derived=False)
        lake.append(table_name, rows, "run")


def land(folder: Path, book: SampleBook, bars: pa.Table) -> DeltaLakeManager:
    """Land a book's executions and decisions, and bars, in a lake of its own."""
    settings = make_settings(folder, {"storage": {"engine": "embedded"}})
    lake = DeltaLakeManager(settings.delta_lake.storage_path, settings)
    lake.append("raw_trade_executions", landed(book.executions, "raw_trade_executions"), "run")
    lake.append("raw_ai_decisions", landed(book.decisions, "raw_ai_decisions"), "run")
    land_bars(lake, bars)
    return lake


def build(lake: DeltaLakeManager, folder: Path, command: str) -> None:
    """Build all models: `build` runs their tests, `run` does not."""
    arguments = ["--quiet", command, "--exclude", "source:*", "--vars", json.dumps(VARIABLES)]
    done = run_dbt(arguments, lake, folder / "dbt")
    assert done.ok, [(node.name, node.status, node.message) for node in done.nodes if not node.ok]
    assert {"model"} | ({"test", "unit_test"} if command == "build" else set()) <= {node.kind for node in done.nodes}


def read(lake: DeltaLakeManager, name: str, suffix: str = "") -> pd.DataFrame:
    """Return a table of silver or gold."""
    for layer in ("silver", "gold"):
        if name in lake.layer(layer + suffix).names():
            return DeltaLakeManager(f"{lake.storage_path}/{layer}{suffix}", lake.settings).read_table(name)
    raise AssertionError(f"{name} was not built")
