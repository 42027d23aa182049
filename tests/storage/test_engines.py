"""One suite for both engines on both stores: same results, and each reads and goes on with what the other wrote.

After every operation a reader of another make, DuckDB over the files that delta-rs lists, has to agree.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from bars import DAY0, bars
from deltalake import DeltaTable, Schema, write_deltalake

from pipelines.errors import ContractError, StorageError
from pipelines.storage import DeltaLakeManager
from pipelines.storage.files import live_files, store_of
from tests.storage.conftest import manager

TABLE = "raw_market_data_1h"
QUOTES = "quotes"
QUOTE_SCHEMA = pa.schema(
    [
        pa.field("asset_pair", pa.string(), nullable=False),
        pa.field("timestamp", pa.timestamp("us", "UTC"), nullable=False),
        pa.field("close", pa.float64(), nullable=False),
        pa.field("note", pa.string()),
        pa.field("partition_date", pa.date32()),
        pa.field("partition_asset_pair", pa.string()),
    ]
)


def stored(lake: DeltaLakeManager, table: str = TABLE, version: int | None = None) -> pa.Table:
    """Return all rows as a third reader finds them: Parquet files read by pyarrow, no engine and no Delta reader."""
    opened = lake._lake.open(table, version)
    store = store_of(table, lake._lake.root)
    parts = [pl.DataFrame(pq.read_table(f.location, filesystem=store, partitioning=None)) for f in live_files(opened)]
    return pl.concat(parts, how="diagonal_relaxed").to_arrow() if parts else pa.table({})


def checksum(lake: DeltaLakeManager, table: str = TABLE, version: int | None = None) -> tuple[int, int]:
    """Return the number of rows and a checksum that knows no order, by DuckDB."""
    rows = stored(lake, table, version)
    if not rows.num_rows:
        return (0, 0)
    rows = rows.select(sorted(rows.column_names))
    return duckdb.sql("select count(*), sum(hash(r)) from rows r").fetchall()[0]


def agreed(lake: DeltaLakeManager, spark: object, table: str = TABLE) -> int:
    """Return the row count that pyarrow, delta-rs and, where there is one, Spark agree on."""
    counts = {stored(lake, table).num_rows, lake.read_arrow(table).num_rows}
    if spark is not None:
        counts.add(lake.scan_table(table).count())
    assert len(counts) == 1, counts
    return counts.pop()


@pytest.fixture
def session(engine, request):
    """The Spark session where the engine is Spark; the embedded engine's tests start no JVM."""
    return request.getfixturevalue("spark") if engine == "spark" else None


def other_of(lake: DeltaLakeManager, folder: Path) -> DeltaLakeManager:
    """Return the same lake with the other engine."""
    other = "spark" if lake.settings.storage.engine == "embedded" else "embedded"
    return manager(folder, lake.storage_path, other)


def test_append_lands_new_and_restated_rows_once(any_lake, session):
    first = any_lake.append(TABLE, bars(), "run-1")
    assert (first.new, first.restated, first.repeated) == (96, 0, 0)
    again = any_lake.append(TABLE, bars(), "run-2")
    assert (again.rows, again.repeated, again.version) == (0, 96, first.version)
    changed = any_lake.append(TABLE, bars(shift=1.0).slice(10, 2), "run-3")
    assert (changed.new, changed.restated) == (0, 2)
    assert agreed(any_lake, session) == 98
    history = any_lake.get_table_history(TABLE)
    assert list(history["version"]) == list(range(len(history)))[::-1]
    assert history["operation"].tolist().count("WRITE") == 2
    read = any_lake.read_table(TABLE, start=DAY0, end=DAY0 + timedelta(hours=3), assets="BTCUSD", columns=["close"])
    assert list(read["close"]) == pytest.approx(bars()["close"].to_pylist()[:3])


def test_rows_that_break_a_constraint_change_nothing(any_lake, session):
    any_lake.append(TABLE, bars(count=2), "good")
    before = checksum(any_lake)
    broken = bars(count=2, start=DAY0 + timedelta(days=3))
    broken = broken.set_column(broken.column_names.index("high"), "high", pc.subtract(broken["low"], 5.0))
    with pytest.raises(StorageError, match="constraint"):
        any_lake.append(TABLE, broken, "bad")
    assert checksum(any_lake) == before
    assert agreed(any_lake, session) == 4


@pytest.mark.spark
def test_each_engine_goes_on_with_what_the_other_wrote(any_lake, spark, tmp_path):
    other = other_of(any_lake, tmp_path)
    assert any_lake.append(TABLE, bars(count=24), "one").new == 48
    assert other.append(TABLE, bars(count=24), "two").repeated == 48
    assert other.append(TABLE, bars(start=DAY0 + timedelta(hours=24), count=24), "three").new == 48
    assert any_lake.append(TABLE, bars(shift=1.0).slice(0, 1), "four").restated == 1
    before = checksum(any_lake)
    assert other.optimize_table(TABLE).files_added == 2
    assert checksum(any_lake) == before
    assert any_lake.append(TABLE, bars(count=24), "five").restated == 1
    assert agreed(any_lake, spark) == agreed(other, spark) == 98


def test_optimize_keeps_every_row_and_every_version(any_lake, session):
    for i in range(4):
        any_lake.append(TABLE, bars(start=DAY0 + timedelta(hours=12 * i), count=12), f"run-{i}")
    before, versions = checksum(any_lake), any_lake.get_table_history(TABLE)["version"].tolist()
    kept = {version: checksum(any_lake, version=version) for version in versions}
    one = any_lake.optimize_table(TABLE, where="partition_asset_pair = 'BTCUSD'")
    assert (one.partitions, one.files_removed, one.files_added) == (1, 4, 1)
    rest = any_lake.optimize_table(TABLE, zorder_columns=["asset_pair", "timestamp"])
    assert len(live_files(any_lake._lake.open(TABLE))) == 2
    assert checksum(any_lake) == before
    idle = any_lake.optimize_table(TABLE)
    assert (idle.files_added, idle.version) == (0, rest.version)
    assert {version: checksum(any_lake, version=version) for version in versions} == kept
    assert agreed(any_lake, session) == 96
    # The statistics of the new files are right: a filter finds what it should, and no more.
    hour = any_lake.read_table(TABLE, start=DAY0 + timedelta(hours=30), end=DAY0 + timedelta(hours=31))
    assert len(hour) == 2


def test_maintain_does_what_is_needed_and_then_nothing(any_lake, session):
    for i in range(5):
        any_lake.append(TABLE, bars(start=DAY0 + timedelta(hours=12 * i), count=12, assets=("BTCUSD",)), f"run-{i}")
    any_lake.append(TABLE, bars(assets=("ETHUSD",)), "one file")
    before = checksum(any_lake)
    planned = any_lake.maintain([TABLE], dry_run=True)[0]
    assert (planned.in_need, planned.before.files, planned.after.files) == (1, 6, 6)
    done = any_lake.maintain([TABLE])[0]
    assert (done.in_need, done.before.files, done.after.files, done.after.most_in_partition) == (1, 6, 2, 1)
    assert checksum(any_lake) == before
    version = any_lake._lake.open(TABLE).version()
    assert any_lake.maintain([TABLE])[0].idle
    assert any_lake._lake.open(TABLE).version() == version
    assert agreed(any_lake, session) == 5 * 12 + 48


def quotes(rows: list[tuple[str, int, float]]) -> pd.DataFrame:
    """Return quotes: asset, hours after the first day, close."""
    return pd.DataFrame(
        {
            "asset_pair": [asset for asset, _, _ in rows],
            "timestamp": [DAY0 + timedelta(hours=hour) for _, hour, _ in rows],
            "close": [close for _, _, close in rows],
        }
    )


@pytest.fixture
def quote_lake(any_lake):
    """A table that is not append-only and that no contract declares, as dbt's are; two days, two assets."""
    uri, options = any_lake._lake.root.uri(QUOTES), any_lake._lake.root.options()
    DeltaTable.create(
        uri,
        Schema.from_arrow(QUOTE_SCHEMA),
        partition_by=["partition_date", "partition_asset_pair"],
        configuration={"lakehouse.partition_granularity": "day"},
        raise_if_key_not_exists=False,
        storage_options=options,
    )
    rows = [
        {
            "asset_pair": asset,
            "timestamp": DAY0 + timedelta(hours=hour),
            "close": float(hour),
            "note": f"{asset} {hour}",
            "partition_date": (DAY0 + timedelta(hours=hour)).date(),
            "partition_asset_pair": asset,
        }
        for asset in ("BTCUSD", "ETHUSD")
        for hour in range(48)
    ]
    write_deltalake(uri, pa.Table.from_pylist(rows, QUOTE_SCHEMA), mode="append", storage_options=options)
    return any_lake


def test_merge_updates_some_columns_and_inserts_new_rows(quote_lake, session):
    rows = quotes([("BTCUSD", 1, 0.0), ("BTCUSD", 1, 99.0), ("BTCUSD", 2, 2.0), ("BTCUSD", 49, 77.0)])
    done = quote_lake.merge_upsert(rows, QUOTES, ["asset_pair", "timestamp"], ["close"])
    assert (done.updated, done.inserted, done.unchanged, done.duplicates) == (1, 1, 1, 1)
    assert agreed(quote_lake, session, QUOTES) == 97
    found = quote_lake.read_table(QUOTES, assets="BTCUSD")
    by_hour = {
        (when - DAY0) / timedelta(hours=1): (close, note)
        for when, close, note in zip(found["timestamp"], found["close"], found["note"], strict=True)
    }
    assert by_hour[1] == (99.0, "BTCUSD 1")
    assert by_hour[2] == (2.0, "BTCUSD 2")
    assert by_hour[49] == (77.0, None)
    assert found[found["close"] == 77.0]["partition_date"].tolist() == [date(2025, 12, 9)]
    again = quote_lake.merge_upsert(rows, QUOTES, ["asset_pair", "timestamp"], ["close"])
    assert (again.updated, again.inserted, again.unchanged) == (0, 0, 3)
    assert agreed(quote_lake, session, QUOTES) == 97


def test_merge_reads_no_partition_that_it_does_not_touch(quote_lake):
    opened = quote_lake._lake.open(QUOTES)
    store = store_of(QUOTES, quote_lake._lake.root)
    for file in live_files(opened):
        if file.partition != (DAY0.date().isoformat(), "BTCUSD"):
            store.delete_file(file.location)
    done = quote_lake.merge_upsert(quotes([("BTCUSD", 5, 55.0)]), QUOTES, ["asset_pair", "timestamp"])
    assert (done.updated, done.inserted) == (1, 0)
    metrics = quote_lake.get_table_history(QUOTES)["operationMetrics"].iloc[0]
    scanned = metrics.get("num_target_files_scanned", metrics.get("numTargetFilesRemoved"))
    assert scanned == 1


@pytest.mark.parametrize(
    ("rows", "keys", "update", "error", "message"),
    [
        ({"asset_pair": [None]}, ["asset_pair", "timestamp"], None, ContractError, "1 of 1 rows have no asset_pair"),
        ({"nonsense": [1.0]}, ["asset_pair", "timestamp"], None, ContractError, "no column nonsense"),
        ({}, ["asset_pair", "missing"], None, ContractError, "lack missing"),
        ({}, ["asset_pair", "timestamp"], ["note"], ContractError, "lack note"),
        ({}, ["asset_pair", "timestamp"], ["timestamp"], ContractError, "cannot be updated"),
        ({}, [], None, ContractError, "no merge keys"),
        ({"close": ["x"]}, ["asset_pair", "timestamp"], None, ContractError, "close of quotes is double"),
        ({"close": None}, ["asset_pair", "timestamp"], None, StorageError, "quotes"),
    ],
)
def test_a_merge_that_cannot_be_changes_nothing(quote_lake, rows, keys, update, error, message):
    before = checksum(quote_lake, QUOTES)
    given = quotes([("BTCUSD", 100, 1.0)]).assign(**rows)
    if rows.get("close", 0) is None:
        given = given.drop(columns="close")
    with pytest.raises(error, match=message):
        quote_lake.merge_upsert(given, QUOTES, keys, update)
    assert checksum(quote_lake, QUOTES) == before


def test_an_update_of_bronze_is_a_restatement(any_lake, session):
    any_lake.append(TABLE, bars(count=24), "a")
    change = pd.DataFrame([{"asset_pair": "BTCUSD", "timestamp": "2025-12-07 10:00:00", "close": 100.5}])
    done = any_lake.merge_upsert(change, TABLE, ["asset_pair", "timestamp"], ["close"])
    assert (done.updated, done.inserted, done.rejected) == (1, 0, 0)
    assert agreed(any_lake, session) == 49
    versions = any_lake.read_table(
        TABLE, assets="BTCUSD", start=DAY0 + timedelta(hours=10), end=DAY0 + timedelta(hours=11)
    ).sort_values("ingested_at")
    assert versions["close"].iloc[-1] == 100.5
    assert versions["volume"].nunique(dropna=False) == 1


def test_time_travel_restore_and_vacuum(any_lake, session):
    first = any_lake.append(TABLE, bars(count=24), "a").version
    any_lake.snapshots.create("before")
    any_lake.append(TABLE, bars(shift=1.0, count=24), "b")
    old = checksum(any_lake, version=first)
    assert any_lake.read_arrow(TABLE, version=first).num_rows == 48
    assert any_lake.read_arrow(TABLE, snapshot="before").num_rows == 48
    assert any_lake.query(f"select count(*) as n from {TABLE}", snapshot="before")["n"].to_pylist() == [48]
    any_lake.restore_table(TABLE, version=first)
    assert checksum(any_lake) == old
    assert agreed(any_lake, session) == 48
    any_lake.vacuum_table(TABLE, retention_hours=0, force=True)
    assert checksum(any_lake) == old
    assert any_lake.read_arrow(TABLE, snapshot="before").num_rows == 48
    # A restored table goes on: what was taken back lands again.
    assert any_lake.append(TABLE, bars(shift=1.0, count=24), "c").restated == 48
    assert agreed(any_lake, session) == 96


def test_unusual_partition_values_survive(any_lake, session):
    """Partition folders are URL-encoded on disk and once more in the log."""
    odd = "odd_assets"
    schema = pa.schema([("timestamp", pa.timestamp("us", "UTC")), ("asset_pair", pa.string()), ("x", pa.int64())])
    uri, options = any_lake._lake.root.uri(odd), any_lake._lake.root.options()
    for start in range(0, 12, 3):
        times = [datetime(2025, 1, 1, hour, tzinfo=UTC) for hour in range(start, start + 3)]
        rows = pa.table(
            {"timestamp": times * 2, "asset_pair": ["^G/X 1%"] * 3 + [None] * 3, "x": range(6)}, schema=schema
        )
        write_deltalake(uri, rows, mode="append", partition_by=["asset_pair"], storage_options=options)
    before = agreed(any_lake, session, odd)
    done = any_lake.optimize_table(odd)
    assert (done.files_removed, done.files_added) == (8, 2)
    assert agreed(any_lake, session, odd) == before == 24
    assert any_lake.read_arrow(odd, assets="^G/X 1%").num_rows == 12
