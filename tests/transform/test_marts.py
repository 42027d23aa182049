"""The gold marts, built by dbt in Spark out of a lake, against the oracle: plain pandas, written from docs/marts.md."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from pyspark.sql import SparkSession

from pipelines.contracts import contract_for
from pipelines.storage import DeltaLakeManager
from pipelines.transform.runner import run_dbt
from tests.conftest import make_settings
from tests.transform.marts_oracle import KEYS, Settings, marts
from tests.transform.sample_book import START, SampleBook, sample_book

pytestmark = pytest.mark.spark

SETTINGS = Settings(initial_balances={"BTC": 2.0}, initial_balance=1_000_000.0, risk_free=0.03)
VARIABLES = {"initial_balances": {"BTC": 2.0}, "initial_balance": 1_000_000, "risk_free_rate": 0.03}
# Within the book: a midnight between two days of trading.
CUT = START + timedelta(days=9)


@dataclass(frozen=True, slots=True)
class Built:
    """The marts as dbt built them, and the bars with the regimes that silver gave them."""

    gold: dict[str, pd.DataFrame]
    bars: pd.DataFrame


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


def build(folder: Path, book: SampleBook, command: str = "build") -> Built:
    """Land a book in a lake of its own, and build all models: `build` runs their tests, `run` does not."""
    settings = make_settings(folder, {"storage": {"engine": "embedded"}})
    lake = DeltaLakeManager(settings.delta_lake.storage_path, settings)
    lake.append("raw_trade_executions", landed(book.executions, "raw_trade_executions"), "run")
    lake.append("raw_ai_decisions", landed(book.decisions, "raw_ai_decisions"), "run")
    for timeframe in ("1h", "4h"):
        table_name = f"raw_market_data_{timeframe}"
        bars = book.bars.filter(pc.equal(book.bars["timeframe"], timeframe))
        bars = landed(bars, table_name, provider="coinbase", price_side="trade", is_adjusted=False, is_derived=False)
        lake.append(table_name, bars, "run")
    arguments = ["--quiet", command, "--exclude", "source:*", "--vars", json.dumps(VARIABLES)]
    done = run_dbt(arguments, lake, folder / "dbt")
    assert done.ok, [(node.name, node.status, node.message) for node in done.nodes if not node.ok]
    assert {"model"} | ({"test", "unit_test"} if command == "build" else set()) <= {node.kind for node in done.nodes}
    gold, silver = (DeltaLakeManager(f"{lake.storage_path}/{layer}", settings) for layer in ("gold", "silver"))
    enriched = silver.read_table("market_data_enriched")[["asset_pair", "timeframe", "timestamp", "market_regime"]]
    bars = book.bars.drop_columns("regime").to_pandas().merge(enriched, on=["asset_pair", "timeframe", "timestamp"])
    assert len(bars) == book.bars.num_rows
    return Built({name: gold.read_table(name) for name in KEYS}, bars.rename(columns={"market_regime": "regime"}))


def until(book: SampleBook, instant: datetime) -> SampleBook:
    """What was known of a book at an instant, exclusive of events then; bars that closed by then."""
    hours = pc.if_else(pc.equal(book.bars["timeframe"], "1h"), timedelta(hours=1), timedelta(hours=4))
    closed = pc.less_equal(pc.add(book.bars["timestamp"], hours.cast(pa.duration("us"))), pa.scalar(instant))
    return replace(
        book,
        executions=book.executions.filter(pc.less(book.executions["timestamp"], pa.scalar(instant))),
        decisions=book.decisions.filter(pc.less(book.decisions["timestamp"], pa.scalar(instant))),
        bars=book.bars.filter(closed),
    )


@pytest.fixture(scope="module")
def book() -> SampleBook:
    return sample_book()


@pytest.fixture(scope="module")
def built(book: SampleBook, tmp_path_factory: pytest.TempPathFactory, spark: SparkSession) -> Built:
    return build(tmp_path_factory.mktemp("marts"), book)


@pytest.fixture(scope="module")
def wanted(book: SampleBook, built: Built) -> dict[str, pd.DataFrame]:
    return marts(book.executions.to_pandas(), book.decisions.to_pandas(), built.bars, SETTINGS)


def assert_same(found: pd.DataFrame, expected: pd.DataFrame, keys: list[str]) -> None:
    assert set(found.columns) == set(expected.columns)
    found, expected = (table.set_index(keys).sort_index() for table in (found, expected))
    assert not found.index.has_duplicates
    pd.testing.assert_index_equal(found.index, expected.index, exact=False)
    for name in expected.columns:
        one, other = found[name], expected[name]
        if name == "known_at":
            same = (pd.to_datetime(one, utc=True) == pd.to_datetime(other, utc=True)).to_numpy()
        elif name == "quote_currency":
            same = (one == other).to_numpy()
        else:
            numbers = (one.astype(float).to_numpy(), other.astype(float).to_numpy())
            same = np.isclose(*numbers, rtol=1e-9, atol=1e-8, equal_nan=True)
        wrong = pd.DataFrame({"found": one, "expected": other})[~same]
        assert wrong.empty, f"{name}, {len(wrong)} rows:\n{wrong.head()}"


def test_the_book_has_regimes_and_every_outcome(built: Built, wanted: dict[str, pd.DataFrame]) -> None:
    assert {"trend", "range"} <= set(built.bars["regime"].dropna())
    last = wanted["mart_trading_performance"].query("asset_pair == 'ALL'")
    assert (last[["wins", "losses", "ties", "unpriced_trades"]].sum() > 0).all()


@pytest.mark.parametrize("name", KEYS)
def test_a_mart_is_the_oracles(name: str, built: Built, wanted: dict[str, pd.DataFrame]) -> None:
    assert_same(built.gold[name], wanted[name], KEYS[name])


def test_rows_do_not_move_by_what_comes_later(book: SampleBook, built: Built, tmp_path: Path) -> None:
    earlier = build(tmp_path, until(book, CUT), "run")
    for name, keys in KEYS.items():
        whole = built.gold[name]
        # Keys that appear later are not there yet.
        assert_same(earlier.gold[name], whole[pd.to_datetime(whole["day"]) < pd.Timestamp(CUT.date())], keys)
