"""Upserts on append-only tables: restatements and new rows, every row accounted for, nothing new the second time."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa
import pytest
from bars import DAY0, bars
from deltalake import DeltaTable

from pipelines.errors import ContractError, TableNotFoundError
from pipelines.storage import DeltaLakeManager
from pipelines.storage.writing import restate
from pipelines.storage.writing.merge import MergeResult

TABLE = "raw_market_data_1h"
KEYS = ["asset_pair", "timestamp"]
OTHERS = ["open", "high", "low", "volume", "provider", "price_side", "is_adjusted", "is_derived"]


def counts(result: MergeResult) -> tuple[int, int, int, int, int]:
    return result.updated, result.inserted, result.unchanged, result.rejected, result.duplicates


def versions(lake: DeltaLakeManager, asset: str, when: datetime, table: str = TABLE) -> pd.DataFrame:
    """Return a bar's versions, oldest first, as DuckDB reads the live files."""
    files = DeltaTable(f"{lake.storage_path}/{table}").file_uris()
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        return connection.execute(
            "select * from read_parquet($files, hive_partitioning = true) "
            "where asset_pair = $asset and timestamp = $when order by ingested_at",
            {"files": files, "asset": asset, "when": when},
        ).df()


def change(close: Any, hour: int = 10, asset: str = "BTCUSD") -> dict[str, Any]:
    return {"asset_pair": asset, "timestamp": f"2025-12-07 {hour:02}:00:00", "close": close}


def records(result: MergeResult) -> list[dict[str, Any]]:
    assert result.dlq_file is not None
    document = json.loads(result.dlq_file.read_text())
    assert document["context"]["table"] == result.table
    return document["records"]


def whole(when: datetime, **values: Any) -> dict[str, Any]:
    """A complete new row."""
    return {**bars(start=when, count=1, assets=("BTCUSD",)).to_pylist()[0], **values}


@pytest.mark.spark
def test_an_update_is_a_restatement_that_carries_the_rest_over(spark, lake):
    lake.append(TABLE, bars(), "a")
    before = versions(lake, "BTCUSD", DAY0 + timedelta(hours=10))
    close = before["close"][0] + 0.5
    rows = pd.DataFrame([change(close), change(close, 11, "btc-usd"), change(1.0, 11, "BTC/USD"), change(close, 12)])
    rows.loc[2, "close"] = close
    result = lake.merge_upsert(df=rows, table_name=TABLE, merge_keys=KEYS, update_columns=["close"])
    assert counts(result) == (3, 0, 0, 0, 1)
    after = versions(lake, "BTCUSD", DAY0 + timedelta(hours=10))
    assert len(after) == 2
    assert after["close"].tolist() == [before["close"][0], close]
    pd.testing.assert_frame_equal(before[OTHERS], after[OTHERS].tail(1).reset_index(drop=True))
    assert after["ingested_at"].is_monotonic_increasing
    assert after["run_id"].tolist() == ["a", result.run_id]
    assert len(lake.read_table(TABLE)) == 99

    again = lake.merge_upsert(rows, TABLE, KEYS, ["close"])
    assert counts(again) == (0, 0, 3, 0, 1)
    assert again.version == result.version


@pytest.mark.spark
def test_new_keys_land_when_complete_and_are_buried_when_not(spark, lake):
    lake.append(TABLE, bars(count=2), "a")
    incomplete = pa.Table.from_pylist([change(100.0, 11), change(100.2, 1)])
    result = lake.merge_upsert(incomplete, TABLE, KEYS, ["close"])
    assert counts(result) == (1, 0, 0, 1, 0)
    (buried,) = records(result)
    assert buried["reason"].startswith("new key, and the row lacks open, high, low, provider")
    assert (buried["close"], buried["timestamp"]) == (100.0, "2025-12-07T11:00:00+00:00")
    again = lake.merge_upsert(incomplete, TABLE, KEYS, ["close"])
    assert counts(again) == (0, 0, 1, 1, 0)
    assert again.dlq_file == result.dlq_file
    assert len(lake.read_table(TABLE)) == 5

    later = DAY0 + timedelta(days=40)
    rows = [whole(later), whole(later + timedelta(hours=1), provider="oanda", price_side="mid", is_adjusted=True)]
    for row in rows:
        del row["timeframe"]
    inserted = lake.merge_upsert(pd.DataFrame(rows), TABLE, [*KEYS, "provider"])
    assert counts(inserted) == (0, 2, 0, 0, 0)
    found = versions(lake, "BTCUSD", later + timedelta(hours=1)).iloc[0]
    assert (found["provider"], found["price_side"], found["is_adjusted"], found["timeframe"]) == (
        "oanda",
        "mid",
        True,
        "1h",
    )
    assert counts(lake.merge_upsert(pd.DataFrame(rows), TABLE, [*KEYS, "provider"])) == (0, 0, 2, 0, 0)


@pytest.mark.spark
def test_bad_values_are_buried_and_the_rest_lands(spark, lake):
    lake.append(TABLE, bars(), "a")
    rows = [change(100.5, 0), change(1e5, 1), change(None, 2), change("n/a", 3), {**change(100.0), "timestamp": "noon"}]
    rows += [
        {**change(100.0, 4), "asset_pair": "NOSUCH"},
        {**change("100.25", 5), "timestamp": "2025-12-07T06:00+01:00"},
    ]
    result = lake.merge_upsert(pd.DataFrame(rows, dtype=object), TABLE, KEYS, ["close"])
    assert counts(result) == (2, 0, 0, 5, 0)
    reasons = [row["reason"] for row in records(result)]
    assert reasons[:3] == ["close not in range", "null close", "wrong type: close"]
    assert versions(lake, "BTCUSD", DAY0 + timedelta(hours=5))["close"].tolist()[-1] == 100.25
    defects = [
        whole(DAY0 + timedelta(days=9), price_side="guess"),
        whole(DAY0 + timedelta(days=10), timeframe="5m"),
        whole(datetime.now(UTC).replace(minute=0, second=0, microsecond=0)),
    ]
    refused = lake.merge_upsert(pa.Table.from_pylist(defects), TABLE, [*KEYS, "provider"])
    assert [row["reason"] for row in records(refused)] == [
        "unknown price_side",
        "timeframe is not 1h",
        "bar not closed yet",
    ]
    assert refused.version == result.version


@pytest.mark.spark
def test_the_best_providers_row_is_meant_unless_one_is_named(spark, lake):
    for provider in ("yfinance", "coinbase", "alpha_vantage"):
        lake.append(TABLE, bars(count=24, provider=provider), provider)
    lake.merge_upsert(pd.DataFrame([change(100.5)]), TABLE, KEYS, ["close"])
    lake.merge_upsert(pd.DataFrame([{**change(100.25), "provider": "yfinance"}]), TABLE, KEYS, ["close"])
    found = versions(lake, "BTCUSD", DAY0 + timedelta(hours=10)).groupby("provider")["close"].agg(["size", "last"])
    assert found.loc["alpha_vantage"].tolist() == [2, 100.5]
    assert found.loc["yfinance"].tolist() == [2, 100.25]
    assert found.loc["coinbase", "size"] == 1
    unnamed = pd.DataFrame([change(100.5), change(100.5, 11)])
    unnamed["provider"] = ["coinbase", None]
    with pytest.raises(ContractError, match="1 of 2 rows have no provider"):
        lake.merge_upsert(unnamed, TABLE, KEYS, ["close"])


@pytest.mark.spark
def test_all_given_columns_are_updated_by_default_from_spark_too(spark, lake):
    lake.append(TABLE, bars(), "a")
    when = DAY0 + timedelta(hours=3)
    frame = spark.createDataFrame(
        [("BTCUSD", when, 100.5, None)], "asset_pair string, timestamp timestamp, close double, volume double"
    )
    assert counts(lake.merge_upsert(frame, TABLE, KEYS)) == (1, 0, 0, 0, 0)
    newest = versions(lake, "BTCUSD", when).iloc[-1]
    assert newest["close"] == 100.5
    assert pd.isna(newest["volume"])
    assert counts(lake.merge_upsert(frame, TABLE, KEYS)) == (0, 0, 1, 0, 0)
    # Nothing to update: only new rows would land.
    assert counts(lake.merge_upsert(pd.DataFrame([change(99.5)]), TABLE, KEYS, [])) == (0, 0, 1, 0, 0)


@pytest.mark.spark
def test_keys_without_time_and_nested_columns(spark, lake):
    decision = {
        "decision_id": "7", "asset_pair": "BTCUSD", "timestamp": DAY0, "action": "BUY", "confidence": 0.5,
        "strategy": "voting", "providers": ["x"], "votes": [{"provider": "x", "action": "BUY", "confidence": 0.5}],
        "provider": "ensemble",
    }  # fmt: skip
    lake.ensure_table("raw_ai_decisions")
    assert counts(lake.merge_upsert(pd.DataFrame([decision]), "raw_ai_decisions", "decision_id")) == (0, 1, 0, 0, 0)
    # A number where the key is text means the same key.
    surer = pd.DataFrame([{"decision_id": 7, "confidence": 0.75}])
    assert counts(lake.merge_upsert(surer, "raw_ai_decisions", ["decision_id"], "confidence")) == (1, 0, 0, 0, 0)
    assert counts(lake.merge_upsert(surer, "raw_ai_decisions", ["decision_id"], "confidence")) == (0, 0, 1, 0, 0)
    rows = lake.read_arrow("raw_ai_decisions").sort_by("ingested_at").to_pylist()
    assert [row["confidence"] for row in rows] == [0.5, 0.75]
    assert rows[0]["votes"] == rows[1]["votes"] == decision["votes"]


@pytest.mark.spark
def test_only_the_keys_partitions_are_read(spark, lake):
    lake.append(TABLE, bars(), "a")
    lake.append(TABLE, bars(start=DAY0 + timedelta(days=60), count=24), "b")
    for partition in (*lake_folders(lake, "ETHUSD"), *lake_folders(lake, "BTCUSD", "2026")):
        shutil.rmtree(partition)
    assert counts(lake.merge_upsert(pd.DataFrame([change(100.5)]), TABLE, KEYS, ["close"])) == (1, 0, 0, 0, 0)


def lake_folders(lake: DeltaLakeManager, asset: str, year: str = "") -> list[Path]:
    found = list((Path(lake.storage_path) / TABLE).glob(f"partition_date={year}*/partition_asset_pair={asset}"))
    assert found
    return found


@pytest.mark.spark
def test_a_restatement_between_reading_and_writing_is_kept(spark, lake, monkeypatch):
    """Someone else changes the low of the bar whose close is being updated: both changes must stand."""
    lake.append(TABLE, bars(), "a")
    row = bars(count=11, assets=("BTCUSD",)).slice(10, 1)
    other = row.set_column(5, "low", pa.array([1.0]))
    bury = restate._bury

    def meanwhile(*arguments):
        lake.append(TABLE, other, "other")
        return bury(*arguments)

    monkeypatch.setattr(restate, "_bury", meanwhile)
    result = lake.merge_upsert(pd.DataFrame([change(100.5)]), TABLE, KEYS, ["close"])
    assert counts(result) == (1, 0, 0, 0, 0)
    newest = versions(lake, "BTCUSD", DAY0 + timedelta(hours=10)).iloc[-1]
    assert (newest["low"], newest["close"]) == (1.0, 100.5)


@pytest.mark.parametrize(
    ("rows", "keys", "update", "message"),
    [
        ([{"asset_pair": "BTCUSD", "close": 1.0}], KEYS, None, "lack the merge key timestamp"),
        ([change(1.0), {**change(1.0), "timestamp": None}], KEYS, None, "1 of 2 rows have no timestamp"),
        ([change(1.0)], [], None, "no merge key does not identify a row"),
        ([change(1.0)], ["asset_pair"], None, "does not identify a row"),
        ([change(1.0)], ["asset_pair", "timestamp", "close"], None, "does not identify a row"),
        ([{**change(1.0), "clsoe": 1.0}], KEYS, None, "no column clsoe"),
        ([{**change(1.0), "run_id": "x"}], KEYS, None, "storage itself fills run_id"),
        ([change(1.0)], KEYS, ["high"], "lack high"),
        ([change(1.0)], KEYS, ["closed"], "did you mean close"),
        ([change(1.0)], KEYS, ["timestamp"], "cannot be updated"),
        ([change(1.0)], KEYS, ["price_side"], "cannot be updated"),
        ([change(1.0)], ["asset_pair", "timestamp' OR 1=1"], None, "does not identify a row"),
    ],
)
def test_what_cannot_be_merged_is_refused_whole(lake, rows, keys, update, message):
    lake.ensure_table(TABLE)
    with pytest.raises(ContractError, match=message):
        lake.merge_upsert(pd.DataFrame(rows), TABLE, keys, update)
    assert not list(lake.read_table(TABLE).index)


def test_refused_tables_and_frames(lake):
    rows = pd.DataFrame([change(1.0)])
    with pytest.raises(TableNotFoundError):
        lake.merge_upsert(rows, TABLE, KEYS)
    lake.ensure_table(TABLE)
    with pytest.raises(ContractError, match="is a log"):
        lake.merge_upsert(pd.DataFrame([{"dataset": "x"}]), "ingest_coverage", ["dataset"])
    with pytest.raises(TypeError, match="cannot merge a list"):
        lake.merge_upsert([change(1.0)], TABLE, KEYS)
    twice = pd.DataFrame([[1.0, 2.0]], columns=["close", "close"])
    with pytest.raises(ContractError, match="close more than once"):
        lake.merge_upsert(twice, TABLE, KEYS)


def test_no_rows_change_nothing(lake):
    lake.ensure_table(TABLE)
    nothing = pa.table({"asset_pair": pa.array([], pa.string()), "timestamp": pa.array([], pa.string())})
    assert counts(lake.merge_upsert(nothing, TABLE, KEYS)) == (0, 0, 0, 0, 0)
