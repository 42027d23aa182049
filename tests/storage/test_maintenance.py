"""Compaction, Z-order and vacuum: fewer files, the same rows, and nothing removed that a reader may need."""

from __future__ import annotations

import os
import re
from datetime import timedelta
from pathlib import Path

import duckdb
import pytest
from bars import DAY0, bars
from deltalake import DeltaTable

from pipelines.contracts import contract_for
from pipelines.errors import ConcurrentWriteError, StorageError, TableNotFoundError
from pipelines.storage import DeltaLakeManager
from pipelines.storage.stores import locks
from pipelines.storage.upkeep.optimize import partition_sql, partition_test

TABLE = "raw_market_data_1h"
LONG_AGO = 1_600_000_000


def files(lake: DeltaLakeManager) -> list[str]:
    return DeltaTable(f"{lake.storage_path}/{TABLE}").file_uris()


def checksum(lake: DeltaLakeManager) -> tuple[int, int]:
    """Return the number of rows and a checksum that knows no order, by DuckDB over the live files."""
    return duckdb.sql(
        f"select count(*), sum(hash(r)) from read_parquet({files(lake)}, hive_partitioning = true) r"
    ).fetchall()[0]


def scatter(lake: DeltaLakeManager, commits: int = 4) -> None:
    for i in range(commits):
        lake.append(TABLE, bars(start=DAY0 + timedelta(hours=12 * i), count=12), f"run-{i}")


@pytest.mark.spark
def test_optimize_merges_files_and_keeps_rows(spark, lake):
    scatter(lake)
    before = checksum(lake)
    assert len(files(lake)) == 8
    one = lake.optimize_table(TABLE, where="partition_date >= '2025-12-01' and partition_asset_pair = 'BTCUSD'")
    assert (one.partitions, one.files_removed, one.files_added) == (1, 4, 1)
    assert len(files(lake)) == 5
    rest = lake.optimize_table(table_name=TABLE, zorder_columns=["asset_pair", "timestamp"])
    assert rest.files_added == len(files(lake)) == 2
    assert rest.bytes_added == sum(Path(file).stat().st_size for file in files(lake)) < rest.bytes_removed
    assert checksum(lake) == before
    assert len(lake.read_table(TABLE)) == spark.read.format("delta").load(f"{lake.storage_path}/{TABLE}").count() == 96
    idle = lake.optimize_table(TABLE)
    assert (idle.files_added, idle.files_removed, idle.version) == (0, 0, rest.version)
    assert lake.optimize_table(TABLE, where="partition_date < '2020-01-01'").partitions == 0
    # A backfill goes on where it was.
    assert lake.append(TABLE, bars(count=12), "again").rows == 0

    listed = lake.vacuum_table(TABLE, retention_hours=0, dry_run=True, force=True)
    assert listed.count >= 8
    assert listed.bytes == sum((Path(lake.storage_path) / TABLE / name).stat().st_size for name in listed.files)
    assert lake.vacuum_table(table_name=TABLE, retention_hours=720).files == ()
    version = lake.tables()[-1].version
    assert len(lake.read_table(TABLE, version=version - 1)) == 96
    gone = lake.vacuum_table(TABLE, retention_hours=0, force=True)
    assert (gone.files, gone.bytes) == (listed.files, listed.bytes)
    on_disk = {
        str(path) for path in (Path(lake.storage_path) / TABLE).rglob("*.parquet") if "_delta_log" not in str(path)
    }
    assert on_disk == set(files(lake))
    assert checksum(lake) == before
    with pytest.raises(StorageError, match="cannot read"):
        lake.read_table(TABLE, version=3)


@pytest.mark.spark
def test_vacuum_keeps_what_a_kept_version_or_a_writer_needs(spark, lake):
    scatter(lake, 2)
    for file in files(lake):
        os.utime(file, (LONG_AGO, LONG_AGO))
    lake.optimize_table(TABLE)
    folder = Path(files(lake)[0]).parent
    orphan, unfinished = folder / "part-orphan.parquet", folder / "part-unfinished.parquet"
    for path in (orphan, unfinished):
        path.write_bytes(b"12345")
    os.utime(orphan, (LONG_AGO, LONG_AGO))
    removed = lake.vacuum_table(TABLE)
    assert [Path(name).name for name in removed.files] == [orphan.name]
    assert removed.bytes == 5
    assert unfinished.exists()
    assert not orphan.exists()
    # The merged files are old, but were removed from the table just now.
    appends = lake.get_table_history(TABLE).query("operation == 'WRITE'").sort_values("version")["version"]
    assert [len(lake.read_table(TABLE, version=version)) for version in appends] == [24, 48]


@pytest.mark.parametrize("hours", [0, 24, 167])
def test_a_retention_under_the_limit_needs_force(lake, hours):
    lake.ensure_table(TABLE)
    with pytest.raises(StorageError, match="under the safe 168 h"):
        lake.vacuum_table(TABLE, retention_hours=hours)
    with pytest.raises(StorageError, match="under the safe 168 h"):
        lake.vacuum_table(TABLE, retention_hours=hours, dry_run=True)
    assert lake.vacuum_table(TABLE, retention_hours=hours, force=True).count == 0


@pytest.mark.parametrize("hours", [-1, 1.5, "720", True])
def test_a_retention_is_a_whole_number_of_hours(lake, hours):
    lake.ensure_table(TABLE)
    with pytest.raises(StorageError, match="whole number"):
        lake.vacuum_table(TABLE, retention_hours=hours, force=True)


def test_a_forced_vacuum_does_not_run_beside_a_writer(lake, monkeypatch):
    lake.ensure_table(TABLE)
    monkeypatch.setattr(locks, "_try", lambda _: False)
    monkeypatch.setattr(locks.turn.__wrapped__, "__defaults__", (0.0,))
    with pytest.raises(ConcurrentWriteError, match="being written"):
        lake.vacuum_table(TABLE, retention_hours=1, force=True)
    assert lake.vacuum_table(TABLE).count == 0


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (["partition_date"], "a file holds one value of a partition column"),
        (["timestamp", "partition_asset_pair"], "partition_asset_pair: a file holds"),
        (["timestmap"], "did you mean timestamp"),
        (["close"], "keeps no statistics on close"),
        (["timestamp) ; DROP TABLE x"], "no column"),
    ],
)
def test_columns_that_cannot_be_ordered_by_are_refused(lake, columns, message):
    lake.ensure_table(TABLE)
    with pytest.raises(StorageError, match=message):
        lake.optimize_table(TABLE, zorder_columns=columns)


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("close > '1'", "close is not a partition column"),
        ("partition_date = '2025-13-01'", "is a date and '2025-13-01' is none"),
        ("partition_date = 2025", "cannot read"),
        ("partition_asset_pair = 'a' OR 1=1", "cannot read"),
        ("partition_asset_pair = 'a'' OR ''1'='1'", "cannot read"),
        ("partition_asset_pair = 'BTCUSD'; DROP TABLE x", "cannot read"),
        ("", "cannot read"),
    ],
)
def test_only_partition_conditions_get_through(lake, where, message):
    lake.ensure_table(TABLE)
    with pytest.raises(StorageError, match=re.escape(message)):
        lake.optimize_table(TABLE, where=where)


def test_a_condition_chooses_partitions():
    meets = partition_test(
        " partition_date>=DATE '2025-12-01'  AND partition_asset_pair = '^TNX' ", contract_for(TABLE)
    )
    assert meets(("2025-12-01", "^TNX"))
    assert not meets(("2025-11-30", "^TNX"))
    assert not meets(("2025-12-01", "TNX"))
    assert not meets((None, "^TNX"))


def test_chosen_partitions_become_sql_with_their_values_quoted():
    chosen = {("2025-12-01", "a'b\\c"), ("2025-12-02", "a'b\\c"), (None, None)}
    assert partition_sql(["day", "`pair"], chosen) == (
        "((`day` IN ('2025-12-01', '2025-12-02')) AND (```pair` IN ('a\\'b\\\\c')))"
        " OR ((`day` IS NULL) AND (```pair` IS NULL))"
    )


def test_unknown_tables_are_named(lake):
    with pytest.raises(TableNotFoundError):
        lake.optimize_table(TABLE)
    with pytest.raises(TableNotFoundError):
        lake.vacuum_table(TABLE)
    for name in ("../x", "raw; drop"):
        with pytest.raises(StorageError, match="not a table name"):
            lake.vacuum_table(name)
