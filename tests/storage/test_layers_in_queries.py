"""SQL reads silver and gold behind their names, together with bronze, now and as they were; no JVM."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from pipelines.errors import InvalidRangeError, SnapshotError, TableNotFoundError
from pipelines.storage import DeltaLakeManager


@pytest.fixture
def made(embedded_lake: DeltaLakeManager) -> DeltaLakeManager:
    """A lake with a silver table of two versions and a gold one of a point in time."""
    root = Path(embedded_lake.storage_path)
    for values in ([1, 2], [3]):
        rows = pa.table({"id": pa.array(values, pa.int64()), "silver": pa.array([0.5] * len(values))})
        write_deltalake(root / "silver" / "lots", rows, mode="append")
    write_deltalake(root / "gold_as_of_20250101t000000" / "marts", pa.table({"id": pa.array([2, 3], pa.int64())}))
    embedded_lake.ensure_table("raw_market_data_1h")
    return embedded_lake


@pytest.mark.parametrize(
    ("sql", "rows"),
    [
        ("select count(*) as n from silver.lots", [{"n": 3}]),
        ('select count(*) as n from "silver"."lots"', [{"n": 3}]),
        ("select sum(l.id) as n from silver.lots l join gold_as_of_20250101t000000.marts m on l.id = m.id", [{"n": 5}]),
        ("select silver.id as n from silver.lots as silver order by n limit 1", [{"n": 1}]),
        ("select max(silver) as n from silver.lots", [{"n": 0.5}]),
        ("select count(*) as n from silver.lots, raw_market_data_1h", [{"n": 0}]),
    ],
)
def test_a_layer_is_read_behind_its_name(made: DeltaLakeManager, sql: str, rows: list[dict[str, object]]) -> None:
    assert made.query(sql).to_pylist() == rows


def test_a_layer_is_read_as_it_was(made: DeltaLakeManager) -> None:
    assert made.query("select count(*) as n from silver.lots", version=0).to_pylist() == [{"n": 2}]
    with pytest.raises(InvalidRangeError, match="has no version as of"):
        made.query("select count(*) as n from silver.lots", as_of_timestamp="2020-01-01")


def test_a_snapshot_says_how_to_have_a_layer_of_it(made: DeltaLakeManager) -> None:
    made.snapshots.create("before")
    with pytest.raises(SnapshotError, match="lakehouse transform --snapshot before"):
        made.query("select * from silver.lots", snapshot="before")


@pytest.mark.parametrize(
    ("sql", "says"),
    [
        ("select * from lots", "no table lots .* did you mean silver.lots"),
        ("select * from silver.lot", "no table silver.lot .* did you mean silver.lots"),
        ("select * from gold.lots", "no table gold.lots .* silver.lots"),
    ],
)
def test_a_wrong_name_is_told_the_nearest(made: DeltaLakeManager, sql: str, says: str) -> None:
    with pytest.raises(TableNotFoundError, match=says):
        made.query(sql)


def test_without_layers_it_says_what_makes_them(embedded_lake: DeltaLakeManager) -> None:
    embedded_lake.ensure_table("raw_market_data_1h")
    with pytest.raises(TableNotFoundError, match="make it with `lakehouse transform`"):
        embedded_lake.query("select * from gold.mart_trading_performance")


def test_a_table_without_a_first_commit_is_not_there(made: DeltaLakeManager) -> None:
    """As a killed run leaves it: data, and a log without a commit."""
    log = Path(made.storage_path) / "silver" / "begun" / "_delta_log"
    (log / "_staged_commits").mkdir(parents=True)
    assert made.layer("silver").names() == ["lots"]
    with pytest.raises(TableNotFoundError, match=r"no table silver\.begun"):
        made.query("select * from silver.begun")
