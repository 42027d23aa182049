"""The log of quality results: one row per check and run, of one origin, kept by every writer."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import duckdb
import pytest
from deltalake import DeltaTable

from pipelines.errors import InvalidRangeError, MixedOriginError
from pipelines.storage import DeltaLakeManager, QualityResult, log_table
from pipelines.timeframes import utc_now

LAG = QualityResult(
    "freshness", "raw_market_data", "stale", "critical", False, 7, 2, asset_pair="O'X", timeframe="1m", observed=312.5
)
SUITE = QualityResult("suite", "raw_market_data", "high < low", "critical", True, 100, 0, "raw_market_data_1h")


def test_what_is_recorded_is_read(embedded_lake: DeltaLakeManager) -> None:
    lake = embedded_lake
    assert lake.quality.read().num_rows == 0
    assert lake.quality.record([], "r0") is None
    assert not lake.exists("quality_results")
    before = utc_now()
    lake.quality.record([SUITE, LAG], "r1")
    lake.quality.record([SUITE], "r2")
    rows = lake.quality.read().to_pylist()
    assert [(row["run_id"], row["check_name"]) for row in rows] == [
        ("r1", "high < low"),
        ("r1", "stale"),
        ("r2", "high < low"),
    ]
    assert rows[1]["asset_pair"] == "O'X"
    assert (rows[1]["observed"], rows[1]["rows_failed"], rows[1]["success"]) == (312.5, 2, False)
    assert all(before <= row["checked_at"] <= utc_now() for row in rows)
    assert lake.quality.read(kind="freshness").num_rows == 1
    assert lake.quality.read(run_id="r2").num_rows == 1
    assert lake.quality.read(run_id="x' OR '1'='1").num_rows == 0
    assert lake.quality.read(since=rows[2]["checked_at"])["run_id"].to_pylist() == ["r2"]
    assert lake.quality.read(since=datetime.now(UTC) + timedelta(hours=1)).num_rows == 0


def test_another_reader_sees_the_same_rows(embedded_lake: DeltaLakeManager) -> None:
    embedded_lake.quality.record([SUITE, LAG], "r1")
    found = duckdb.sql(
        "select kind, check_name, observed from read_parquet(?) order by kind",
        params=[f"{embedded_lake.storage_path}/quality_results/*.parquet"],
    ).fetchall()
    assert found == [("freshness", "stale", 312.5), ("suite", "high < low", None)]


def test_results_about_made_up_and_real_data_do_not_mix(embedded_lake: DeltaLakeManager) -> None:
    embedded_lake.quality.record([SUITE], "r1", synthetic=True)
    with pytest.raises(MixedOriginError, match=r"delta_lake\.storage_path"):
        embedded_lake.quality.record([SUITE], "r2")


def test_writers_and_compactions_at_once_lose_nothing(
    embedded_lake: DeltaLakeManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_table, "COMPACT_ABOVE_FILES", 4)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: embedded_lake.quality.record([SUITE], f"r{number}"), range(40)))
    assert sorted(embedded_lake.quality.read()["run_id"].to_pylist()) == sorted(f"r{number}" for number in range(40))
    assert len(DeltaTable(f"{embedded_lake.storage_path}/quality_results").file_uris()) <= 8


def test_a_log_is_maintained_checked_and_never_restored(embedded_lake: DeltaLakeManager) -> None:
    lake = embedded_lake
    for number in range(6):
        lake.quality.record([SUITE], f"r{number}")
    assert [done.after.files for done in lake.maintain(["quality_results"])] == [1]
    assert lake.fsck("quality_results").ok
    assert lake.quality.read().num_rows == 6
    with pytest.raises(InvalidRangeError, match="is a log and is not restored"):
        lake.restore_table("quality_results", version=1)
    with pytest.raises(InvalidRangeError, match="nothing to be rebuilt from"):
        lake.rebuilds.plan("quality_results")
