"""Reading a table as it was: by version, instant and snapshot, while the log is whole and after it was shortened."""

from __future__ import annotations

import json
import math
import re
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import duckdb
import polars as pl
import pyarrow as pa
import pytest
from bars import DAY0, bars
from deltalake import DeltaTable, write_deltalake

from pipelines.config import Settings
from pipelines.errors import InvalidRangeError, SnapshotError, StorageError, TableNotFoundError
from pipelines.storage import DeltaLakeManager
from pipelines.storage.stores.objects import objects_of
from pipelines.storage.upkeep.log_cleanup import clean_log

TABLE = "raw_market_data_1h"
MONTHS = [datetime(2026, month, 10, 12, tzinfo=UTC) for month in (1, 2, 3)]
COUNT = f"select count(*) as n from {TABLE}"


def opened(lake: DeltaLakeManager, table: str = TABLE) -> DeltaTable:
    return DeltaTable(f"{lake.storage_path}/{table}")


def commit_file(lake: DeltaLakeManager, version: int, table: str = TABLE) -> Path:
    return Path(lake.storage_path) / table / "_delta_log" / f"{version:020d}.json"


def dated(lake: DeltaLakeManager, version: int, instant: datetime, table: str = TABLE) -> None:
    """Make a commit one of that instant."""
    path = commit_file(lake, version, table)
    actions = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for action in actions:
        if "commitInfo" in action:
            action["commitInfo"]["timestamp"] = int(instant.timestamp() * 1000)
    path.write_text("".join(f"{json.dumps(action)}\n" for action in actions), encoding="utf-8")


def rows(table: pa.Table) -> list[tuple]:
    return sorted(pl.from_arrow(table).select(sorted(table.column_names)).rows(), key=str)


@pytest.fixture
def clock(monkeypatch):
    """Sets what the writer takes for now."""
    import pipelines.storage.writing.append as writer

    return lambda instant: monkeypatch.setattr(writer, "utc_now", lambda: instant)


@pytest.fixture
def three_months(embedded_lake, clock) -> tuple[DeltaLakeManager, list[list[tuple]]]:
    """A lake written in January, February and March, with restatements; and what was in it after each."""
    lake, seen = embedded_lake, []
    for i, month in enumerate(MONTHS):
        clock(month)
        lake.append(TABLE, bars(count=24 * (i + 1), shift=i / 10 if i else 0.0), f"run-{i}")
        if i == 0:
            for version in (0, 1):
                dated(lake, version, month - timedelta(days=1))
        dated(lake, opened(lake).version(), month)
        seen.append(rows(lake.read_arrow(TABLE)))
    assert [len(each) for each in seen] == [48, 48 + 96, 48 + 96 + 144]
    return lake, seen


def shortened(lake: DeltaLakeManager) -> int:
    """Leave the log from its newest version on; return that."""
    table = opened(lake)
    table.create_checkpoint()
    assert clean_log(lake._lake, TABLE, 0).oldest == table.version()
    return table.version()


def test_an_instant_gives_what_was_there_then(three_months):
    lake, seen = three_months
    for month, expected in zip(MONTHS, seen, strict=True):
        assert rows(lake.read_arrow(TABLE, as_of_timestamp=month)) == expected
        assert rows(lake.read_arrow(TABLE, as_of_timestamp=month + timedelta(days=20))) == expected
        assert lake.query(COUNT, as_of_timestamp=month)["n"].to_pylist() == [len(expected)]
    assert len(lake.read_table(TABLE, as_of_timestamp=MONTHS[0] - timedelta(milliseconds=1))) == 0


def test_an_instant_from_before_a_shortened_log_gives_what_was_there_then(three_months):
    lake, seen = three_months
    shortened(lake)
    with pytest.raises(StorageError, match=f"{TABLE} has no version 2; it has 4 only"):
        lake.read_table(TABLE, version=2)
    for month, expected in zip(MONTHS, seen, strict=True):
        for instant in (month, month + timedelta(days=20)):
            assert rows(lake.read_arrow(TABLE, as_of_timestamp=instant)) == expected
            assert lake.query(COUNT, as_of_timestamp=instant)["n"].to_pylist() == [len(expected)]
    early = lake.query(f"select * from {TABLE} where asset_pair = 'ETHUSD'", as_of_timestamp=MONTHS[1])
    assert rows(early) == [row for row in seen[1] if "ETHUSD" in row]
    assert lake.read_table(TABLE, as_of_timestamp="2001-01-01").empty
    assert (
        len(lake.read_table(TABLE, as_of_timestamp=MONTHS[1], start=DAY0 + timedelta(hours=30), assets="BTCUSD")) == 18
    )


def test_a_query_sees_one_instant_throughout(three_months):
    lake, seen = three_months
    shortened(lake)
    twice = lake.query(
        f"with x as (select * from {TABLE}) select count(*) n from x, {TABLE}", as_of_timestamp=MONTHS[0]
    )
    assert twice["n"].to_pylist() == [len(seen[0]) ** 2]


def test_a_compaction_between_does_not_matter(three_months):
    lake, seen = three_months
    opened(lake).optimize.compact()
    shortened(lake)
    lake.vacuum_table(TABLE, 0, force=True)
    for month, expected in zip(MONTHS, seen, strict=True):
        assert rows(lake.read_arrow(TABLE, as_of_timestamp=month)) == expected


def test_an_instant_whose_files_are_vacuumed_gives_what_was_there_then(three_months):
    """The log still has the version, compaction and vacuum have taken its files."""
    lake, seen = three_months
    opened(lake).optimize.compact()
    lake.vacuum_table(TABLE, 0, force=True)
    with pytest.raises(StorageError, match="cannot read"):
        lake.read_table(TABLE, version=2)
    for month, expected in zip(MONTHS, seen, strict=True):
        assert rows(lake.read_arrow(TABLE, as_of_timestamp=month)) == expected
    assert lake.query(COUNT, as_of_timestamp=MONTHS[1])["n"].to_pylist() == [len(seen[1])]


def test_an_instant_after_a_restore_lacks_what_it_took_even_when_vacuumed(three_months):
    lake, seen = three_months
    opened(lake).restore(3)
    dated(lake, 5, MONTHS[2] + timedelta(days=10))
    opened(lake).optimize.compact()
    lake.vacuum_table(TABLE, 0, force=True)
    assert rows(lake.read_arrow(TABLE, as_of_timestamp=MONTHS[2] + timedelta(days=11))) == seen[1]
    with pytest.raises(StorageError, match="cannot read"):
        lake.read_table(TABLE, as_of_timestamp=MONTHS[2])


def test_what_a_restore_takes_away_was_there_before_it(three_months):
    lake, seen = three_months
    shortened(lake)
    lake.append(TABLE, bars(start=DAY0 + timedelta(days=9), count=1), "later")
    opened(lake).restore(4)
    opened(lake).restore(5)
    opened(lake).restore(4)
    assert len(lake.read_table(TABLE)) == len(seen[2])
    for month, expected in zip(MONTHS, seen, strict=True):
        assert rows(lake.read_arrow(TABLE, as_of_timestamp=month)) == expected


def test_rows_that_a_restore_took_away_are_found_in_the_version_before_it(three_months):
    """The oldest retained version has all three months; the newest has January alone."""
    lake, seen = three_months
    opened(lake).create_checkpoint()
    opened(lake).restore(2)
    for version in range(4):
        commit_file(lake, version).unlink()
    assert len(lake.read_table(TABLE)) == len(seen[0])
    for month, expected in zip(MONTHS[:2], seen, strict=False):
        assert rows(lake.read_arrow(TABLE, as_of_timestamp=month)) == expected


def test_the_range_of_a_mutable_table_is_named(embedded_lake):
    place = f"{embedded_lake.storage_path}/silver_mean"
    for value in (1, 2, 3):
        write_deltalake(place, pa.table({"ingested_at": [MONTHS[0]], "v": [value]}), mode="overwrite")
    for version, month in enumerate(MONTHS):
        dated(embedded_lake, version, month, "silver_mean")
    DeltaTable(place).create_checkpoint()
    for version in (0, 1):
        commit_file(embedded_lake, version, "silver_mean").unlink()
    assert embedded_lake.read_table("silver_mean", as_of_timestamp=MONTHS[2])["v"].tolist() == [3]
    for instant in (MONTHS[1], "2999-01-01"):
        with pytest.raises(InvalidRangeError, match=re.escape(MONTHS[2].isoformat())):
            embedded_lake.read_table("silver_mean", as_of_timestamp=instant)


def test_versions_that_a_killed_clean_up_left_without_a_base_are_not_offered(embedded_lake):
    place = f"{embedded_lake.storage_path}/silver_mean"
    for value in range(6):
        write_deltalake(place, pa.table({"v": [value]}), mode="append")
        if value == 3:
            DeltaTable(place).create_checkpoint()
    commit_file(embedded_lake, 0, "silver_mean").unlink()
    with pytest.raises(StorageError, match="it has versions 3 to 5"):
        embedded_lake.read_table("silver_mean", version=1)
    with pytest.raises(StorageError, match="it has versions 3 to 5"):
        embedded_lake.read_table("silver_mean", version=9)
    assert len(embedded_lake.read_table("silver_mean", version=3)) == 4
    first = embedded_lake.get_table_history("silver_mean").set_index("version")["timestamp"][3]
    with pytest.raises(InvalidRangeError, match=re.escape(first.isoformat()[:23])):
        embedded_lake.read_table("silver_mean", as_of_timestamp=first - timedelta(milliseconds=1))


@pytest.mark.parametrize(
    "garbage",
    [
        "yesterday",
        "",
        "2025-13-01",
        "2025-12-07T25:00",
        "12/07/2025",
        5,
        1.5,
        math.nan,
        [],
        "9999-12-31T23:00:00-10:00",
    ],
)
def test_an_instant_is_parsed_strictly(three_months, garbage):
    lake, _ = three_months
    for read in (lake.read_table, lake.scan_table):
        with pytest.raises(InvalidRangeError, match="is not a date or time"):
            read(TABLE, as_of_timestamp=garbage)
    with pytest.raises(InvalidRangeError, match="is not a date or time"):
        lake.query(COUNT, as_of_timestamp=garbage)


def test_pandas_missing_time_is_no_instant(three_months):
    import pandas as pd

    with pytest.raises(InvalidRangeError, match="is not a date or time"):
        three_months[0].read_table(TABLE, as_of_timestamp=pd.NaT)


@pytest.mark.parametrize(
    "instant",
    [
        "2026-02-10T12:00:00Z",
        "2026-02-10T14:00:00+02:00",
        "2026-02-10 12:00",
        "20260210T120000Z",
        datetime(2026, 2, 10, 12),  # noqa: DTZ001 - a zoneless one is UTC
        date(2026, 2, 11),
    ],
)
def test_every_spelling_of_an_instant_is_the_same(three_months, instant):
    lake, seen = three_months
    assert rows(lake.read_arrow(TABLE, as_of_timestamp=instant)) == seen[1]


@pytest.mark.parametrize("version", [-1, True, "2", 2.0])
def test_a_version_is_a_whole_number(three_months, version):
    with pytest.raises(InvalidRangeError, match="is not a version"):
        three_months[0].read_table(TABLE, version=version)


def test_one_moment_at_a_time(three_months):
    lake, _ = three_months
    lake.snapshots.create("now")
    for wrong in (
        {"version": 1, "snapshot": "now"},
        {"version": 1, "as_of_timestamp": MONTHS[0]},
        {"as_of_timestamp": MONTHS[0], "snapshot": "now"},
    ):
        for read in (lake.read_table, lake.read_arrow, lake.scan_table):
            with pytest.raises(InvalidRangeError, match="not several"):
                read(TABLE, **wrong)
        with pytest.raises(InvalidRangeError, match="not several"):
            lake.query(COUNT, **wrong)


def test_a_snapshot_reads_the_versions_it_pins(three_months):
    lake, seen = three_months
    lake.snapshots.create("march")
    lake.append(TABLE, bars(start=DAY0 + timedelta(days=9), count=1), "later")
    assert rows(lake.read_arrow(TABLE, snapshot="march")) == seen[2]
    assert lake.query(COUNT, snapshot="march")["n"].to_pylist() == [len(seen[2])]
    lake.ensure_table("raw_market_data_1d")
    with pytest.raises(SnapshotError, match="has no table raw_market_data_1d; it has"):
        lake.read_table("raw_market_data_1d", snapshot="march")
    with pytest.raises(SnapshotError, match="has no table raw_market_data_1d"):
        lake.query("select * from raw_market_data_1d", snapshot="march")
    with pytest.raises(SnapshotError, match="did you mean march"):
        lake.query(COUNT, snapshot="marhc")
    with pytest.raises(TableNotFoundError):
        lake.query("select * from raw_market_data_4h", snapshot="march")


def test_a_name_that_is_no_table_in_the_statement_needs_no_such_version(three_months):
    lake, _ = three_months
    lake.snapshots.create("march")
    lake.ensure_table("raw_market_data_1d")
    found = lake.query("select 'raw_market_data_1d' as raw_market_data_1d", snapshot="march")
    assert found["raw_market_data_1d"].to_pylist() == ["raw_market_data_1d"]


@pytest.mark.spark
def test_spark_sees_the_same(three_months, spark):
    lake, seen = three_months
    lake.snapshots.create("march")
    shortened(lake)
    lake.append(TABLE, bars(start=DAY0 + timedelta(days=9), count=1), "later")
    for when, expected in (
        ({"as_of_timestamp": MONTHS[0]}, seen[0]),
        ({"as_of_timestamp": MONTHS[1] + timedelta(days=3)}, seen[1]),
        ({"snapshot": "march"}, seen[2]),
    ):
        assert lake.scan_table(TABLE, **when).count() == len(expected)
    assert lake.scan_table(TABLE, as_of_timestamp=MONTHS[1], assets="BTCUSD").count() == len(seen[1]) / 2


# ---- tables that no contract declares


@pytest.fixture
def undeclared(embedded_lake) -> DeltaLakeManager:
    """A lake with a table as dbt makes them: six rows in two partitions, written twice."""
    table = pa.table(
        {
            "desk": ["a", "b", "a"],
            "timestamp": pa.array([DAY0 + timedelta(hours=i) for i in range(3)], pa.timestamp("us", "UTC")),
            "mean": pa.array([1.5, 2.5, None]),
        }
    )
    for _ in range(2):
        write_deltalake(f"{embedded_lake.storage_path}/gold_means", table, mode="append", partition_by=["desk"])
    return embedded_lake


def test_a_table_without_a_contract_is_read_like_any_other(undeclared):
    files = opened(undeclared, "gold_means").file_uris()
    expected = duckdb.sql(f"select count(*), sum(mean) from read_parquet({files}, hive_partitioning = true)").fetchall()
    frame = undeclared.read_table("gold_means")
    assert [(len(frame), frame["mean"].sum())] == expected
    assert frame["timestamp"].is_monotonic_increasing
    part = undeclared.read_table("gold_means", start=DAY0 + timedelta(hours=1), columns=["mean", "desk"], version=0)
    assert list(part.columns) == ["mean", "desk"]
    assert sorted(part["desk"]) == ["a", "b"]
    assert undeclared.query("select count(*) n from gold_means", version=0)["n"].to_pylist() == [3]
    assert list(undeclared.get_table_history("gold_means")["version"]) == [1, 0]
    info = next(each for each in undeclared.tables() if each.name == "gold_means")
    assert (info.rows, info.version, info.newest) == (6, 1, DAY0 + timedelta(hours=2))
    with pytest.raises(StorageError, match="no asset_pair"):
        undeclared.read_table("gold_means", assets="BTCUSD")
    with pytest.raises(StorageError, match="did you mean mean"):
        undeclared.read_table("gold_means", columns=["maen"])


def test_an_object_store_lists_tables_without_a_contract(s3_lake_path):
    lake = DeltaLakeManager(s3_lake_path, Settings())
    options = lake._lake.root.options()
    for name in ("gold_means", "raw_market_data_1h", "Odd-Name"):
        write_deltalake(f"{s3_lake_path}/{name}", pa.table({"v": [1]}), storage_options=options)
    objects_of(lake._lake.root).put("_other/file", b"x")
    objects_of(lake._lake.root).put("no_table/file", b"x")
    assert [table.name for table in lake.tables()] == ["gold_means", "raw_market_data_1h"]
    assert lake.query("select v from gold_means", as_of_timestamp=datetime.now(UTC))["v"].to_pylist() == [1]
    with pytest.raises(StorageError, match="it has 0 only"):
        lake.read_table("gold_means", version=1)


@pytest.mark.spark
def test_spark_reads_a_table_without_a_contract(undeclared, spark):
    assert undeclared.scan_table("gold_means", start=DAY0 + timedelta(hours=1)).count() == 4
    with pytest.raises(StorageError, match="no asset_pair"):
        undeclared.scan_table("gold_means", assets="BTCUSD")
    write_deltalake(f"{undeclared.storage_path}/gold_totals", pa.table({"n": [1]}))
    with pytest.raises(StorageError, match="no event time"):
        undeclared.scan_table("gold_totals", start=DAY0)


def test_a_table_without_event_time_cannot_be_selected_by_it(embedded_lake):
    write_deltalake(f"{embedded_lake.storage_path}/gold_totals", pa.table({"timestamp": ["soon"], "n": [1]}))
    assert len(embedded_lake.read_table("gold_totals")) == 1
    with pytest.raises(StorageError, match="no event time"):
        embedded_lake.read_table("gold_totals", start="2025-01-01")


def test_a_zoneless_event_time_is_utc(embedded_lake):
    times = pa.array([datetime(2025, 12, 7, hour) for hour in range(4)], pa.timestamp("us"))  # noqa: DTZ001
    write_deltalake(f"{embedded_lake.storage_path}/gold_local", pa.table({"timestamp": times}))
    found = embedded_lake.read_table("gold_local", start="2025-12-07T01:00:00Z", end="2025-12-07T03:00:00Z")
    assert [when.hour for when in found["timestamp"]] == [1, 2]
    assert embedded_lake.tables()[-1].newest == datetime(2025, 12, 7, 3, tzinfo=UTC)
