"""Reading, time travel, history, queries: without a JVM, and agreeing with Spark."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest
from bars import DAY0, bars

from pipelines.config import Settings
from pipelines.errors import InvalidRangeError, StorageError, TableNotFoundError
from pipelines.storage import DeltaLakeManager

pytestmark = pytest.mark.spark
TABLE = "raw_market_data_1h"


@pytest.fixture(scope="module")
def filled(spark, tmp_path_factory) -> DeltaLakeManager:
    """Versions 2 (two days of two pairs) and 3 (one more day); 0 and 1 create the table."""
    lake = DeltaLakeManager(tmp_path_factory.mktemp("filled") / "lake", Settings())
    lake.append(TABLE, bars(), "one")
    lake.append(TABLE, bars(start=DAY0 + timedelta(days=2), count=24), "two")
    return lake


def test_start_is_inclusive_and_end_exclusive(filled):
    rows = filled.read_table(TABLE, start="2025-12-07T05:00:00Z", end="2025-12-07T08:00:00", assets=["BTCUSD"])
    assert [when.hour for when in rows["timestamp"]] == [5, 6, 7]
    assert str(rows["timestamp"].dt.tz) == "UTC"
    assert len(filled.read_table(TABLE, start="2025-12-08", end=datetime(2025, 12, 9, tzinfo=UTC))) == 48


def test_scan_agrees_with_read(filled):
    wanted = {"start": "2025-12-07T05:00:00Z", "end": "2025-12-09T03:00:00Z", "assets": ["ETHUSD"]}
    columns = ["timestamp", "close"]
    expected = filled.read_table(TABLE, columns=columns, **wanted)
    found = filled.scan_table(TABLE, columns=columns, **wanted)
    assert found.columns == columns
    assert sorted(row.close for row in found.collect()) == sorted(expected["close"])
    assert filled.scan_table(TABLE, version=2).count() == len(filled.read_table(TABLE, version=2)) == 96


def test_columns_come_in_the_order_asked(filled):
    assert list(filled.read_table(TABLE, columns=["close", "asset_pair"]).columns) == ["close", "asset_pair"]
    with pytest.raises(StorageError, match="did you mean close"):
        filled.read_table(TABLE, columns=["clsoe"])


def test_filters_skip_files(filled, tmp_path):
    """A read of one asset must not touch the other's files: remove them and see."""
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(filled.storage_path, copy)
    for folder in (copy / TABLE).rglob("partition_asset_pair=ETHUSD"):
        shutil.rmtree(folder)
    lake = DeltaLakeManager(copy, Settings())
    assert len(lake.read_table(TABLE, assets="BTCUSD")) == 72
    with pytest.raises(StorageError):
        lake.read_table(TABLE, assets="ETHUSD")


def test_time_travel_by_version_and_by_the_histories_own_instants(filled):
    history = filled.get_table_history(TABLE)
    assert list(history["version"]) == [3, 2, 1, 0]
    assert {"version", "timestamp", "operation", "operationMetrics"} <= set(history.columns)
    assert str(history["timestamp"].dt.tz) == "UTC"
    assert history["operationMetrics"][0]["numOutputRows"] == 48
    at = history.set_index("version")["timestamp"]
    assert len(filled.read_table(TABLE, as_of_timestamp=at[2].to_pydatetime())) == 96
    assert len(filled.read_table(TABLE, as_of_timestamp=(at[3] - timedelta(milliseconds=1)).isoformat())) == 96
    assert len(filled.read_table(TABLE, as_of_timestamp=at[3].isoformat())) == 144
    assert len(filled.read_table(TABLE, version=1)) == 0


@pytest.mark.parametrize("when", ["2001-01-01", "2999-01-01"])
def test_an_instant_outside_the_history_names_the_valid_range(filled, when):
    first = filled.get_table_history(TABLE)["timestamp"].min()
    with pytest.raises(InvalidRangeError, match=first.isoformat()[:19]):
        filled.read_table(TABLE, as_of_timestamp=when)


def test_wrong_requests_are_explained(filled):
    with pytest.raises(StorageError, match="versions 0 to 3"):
        filled.read_table(TABLE, version=99)
    with pytest.raises(TableNotFoundError, match="did you mean raw_market_data_1h"):
        filled.read_table("raw_market_data_1hh")
    with pytest.raises(InvalidRangeError, match="inverted"):
        filled.read_table(TABLE, start="2025-12-08", end="2025-12-07")
    with pytest.raises(InvalidRangeError, match="not several"):
        filled.read_table(TABLE, version=1, as_of_timestamp="2025-12-07")
    with pytest.raises(InvalidRangeError, match="not a date"):
        filled.read_table(TABLE, start="yesterday")


@pytest.mark.parametrize(
    "name", ["../etc", "a/b", "", "a; drop table x", "raw market", "RAW", "..", "a.b", "x" * 200, "`a`", "a\n", None]
)
def test_hostile_table_names_are_refused(filled, name):
    for use in (
        filled.read_table,
        filled.exists,
        filled.get_table_history,
        filled.ensure_table,
        filled.scan_table,
        lambda bad: filled.append(bad, bars(), "x"),
    ):
        with pytest.raises(StorageError, match="is not a table name"):
            use(name)


def test_assets_are_values_never_sql(filled):
    assert len(filled.read_table(TABLE, assets=["x') OR ('1'='1"])) == 0
    assert len(filled.read_table(TABLE, assets=[])) == 0


def test_query_reads_any_version(filled):
    sql = f"select asset_pair, count(*) as n from {TABLE} group by 1 order by 1"
    assert filled.query(sql).to_pydict() == {"asset_pair": ["BTCUSD", "ETHUSD"], "n": [72, 72]}
    assert filled.query(sql, version=2)["n"].to_pylist() == [48, 48]
    joined = f"with x as (select * from {TABLE}) select count(*) as n from x join ingest_coverage c on true;"
    assert filled.query(joined)["n"].to_pylist() == [0]


@pytest.mark.parametrize(
    "sql",
    [
        f"delete from {TABLE}",
        f"select 1; drop table {TABLE}",
        f"with x as (select 1) insert into {TABLE} select * from x",
        "copy (select 1) to '/tmp/x.csv'",
        "create external table t stored as csv location '/etc/passwd'",
        "",
        "-- select 1",
        "explain select 1",
        "set datafusion.execution.batch_size = 1",
    ],
)
def test_only_one_reading_statement_is_run(filled, sql):
    with pytest.raises(StorageError, match="single SELECT"):
        filled.query(sql)
    assert len(filled.read_table(TABLE)) == 144


def test_query_errors_are_explained(filled):
    with pytest.raises(TableNotFoundError, match="did you mean raw_market_data_1h"):
        filled.query("select * from raw_market_data_2h")
    with pytest.raises(StorageError, match="query failed"):
        filled.query(f"select nothing from {TABLE}")
    with pytest.raises(StorageError):
        filled.query("select * from '/etc/passwd'")
    assert filled.query("select 'a; delete' as \"insert\"").to_pydict() == {"insert": ["a; delete"]}


def test_table_properties_come_from_the_contract(filled):
    from deltalake import DeltaTable

    table = DeltaTable(f"{filled.storage_path}/{TABLE}")
    properties = table.metadata().configuration
    assert properties["delta.appendOnly"] == "true"
    assert properties["lakehouse.origin"] == "real"
    assert properties["lakehouse.contract.id"] == "raw_market_data"
    assert properties["lakehouse.partition_granularity"] == "month"
    # delta-rs may write an equal condition its own way.
    assert properties["delta.constraints.high_low"] in {"high >= low", "low <= high"}
    fields = {field.name: field for field in table.schema().fields}
    assert not fields["close"].nullable
    assert fields["volume"].nullable
    assert "UTC" in fields["timestamp"].metadata["comment"]
    assert str(fields["timestamp"].type.type) == "timestamp"
    assert table.metadata().partition_columns == ["partition_date", "partition_asset_pair"]


def test_status_counts_from_the_log(filled):
    info = {table.name: table for table in filled.tables()}[TABLE]
    assert (info.rows, info.version, info.origin) == (144, 3, "real")
    assert info.newest == DAY0 + timedelta(days=2, hours=23)
    assert info.bytes > 0


def test_a_new_lake_is_empty_not_an_error(lake):
    assert lake.tables() == []
    assert not lake.exists(TABLE)
    with pytest.raises(TableNotFoundError, match="run a backfill"):
        lake.read_table(TABLE)


def test_reading_loads_no_spark(filled):
    code = (
        "import sys; from pipelines.storage import DeltaLakeManager; assert 'pandas' not in sys.modules\n"
        f"m = DeltaLakeManager({filled.storage_path!r}); m.read_table({TABLE!r}); m.tables(); m.coverage.read()\n"
        f"m.get_table_history({TABLE!r}); assert 'pyspark' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_arrow_has_the_contracts_types(filled):
    from pipelines.contracts import contract_for

    assert filled.read_arrow(TABLE).schema.types == contract_for(TABLE).arrow_schema.types
    assert isinstance(filled.read_arrow(TABLE), pa.Table)
