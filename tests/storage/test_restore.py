"""Restoring: the table is what it was, and the next backfill lands exactly what is missing now."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from bars import DAY0, bars
from damage import commit_file, cut, data_file

from pipelines.batch.engine import Backfill
from pipelines.batch.jobs import bar_job
from pipelines.batch.results import BackfillResult
from pipelines.errors import InvalidRangeError, StorageError, TableNotFoundError
from pipelines.storage import DeltaLakeManager
from pipelines.storage.recovery import restore as restoring
from pipelines.timeframes import Timeframe, utc_now
from tests.batch.exchange import BAR, Exchange, count, exchange_settings, stored, truth
from tests.cli.shell import run
from tests.conftest import make_settings

H1, H4 = "raw_market_data_1h", "raw_market_data_4h"


@pytest.fixture
def lake(tmp_path: Path, exchange: Exchange) -> DeltaLakeManager:
    config = exchange_settings(tmp_path, exchange, {"storage": {"engine": "embedded"}})
    return DeltaLakeManager(config.delta_lake.storage_path, config)


def backfill(lake: DeltaLakeManager, start: str, end: str, *frames: str, **options: Any) -> BackfillResult:
    jobs = [
        bar_job(asset, frame, start, end, now=utc_now(), **options)
        for frame in frames or ("1h",)
        for asset in ("BTCUSD", "ETHUSD")
    ]
    result = asyncio.run(Backfill(lake, lake.settings).run(jobs))
    assert result.ok, result.as_dict()
    return result


def version(lake: DeltaLakeManager, table: str = H1) -> int:
    return next(info.version for info in lake.tables() if info.name == table)


def assert_is(exchange: Exchange, lake: DeltaLakeManager, frame: Timeframe, start: str, end: str) -> None:
    """Assert that the newest version of each bar is the exchange's, and that none is there that it has not."""
    for asset in ("BTCUSD", "ETHUSD"):
        expected = truth(exchange, f"{asset[:3]}-{asset[3:]}", frame, start, end)
        found = stored(lake.storage_path, f"raw_market_data_{frame}", asset).sort_values("ingested_at")
        found = found[~found.index.duplicated(keep="last")].sort_index()
        assert list(found.index) == list(expected.index)
        assert (found[BAR] - expected[BAR]).abs().to_numpy().max() < 1e-9


def test_the_next_backfill_asks_for_exactly_what_the_restore_removed(lake, exchange):
    backfill(lake, "2025-12-07", "2025-12-09")
    kept = version(lake)
    backfill(lake, "2025-12-05", "2025-12-07")
    backfill(lake, "2025-12-09", "2025-12-10")
    done = lake.restore_table(H1, version=kept)
    assert (done.restored, done.version, done.rows_removed, done.rows_added) == (kept, version(lake), 144, 0)
    assert count(lake.storage_path)[H1] == 96
    assert {claim[0][1] for claim in (each.claim for each in done.retracted)} == {"BTCUSD", "ETHUSD"}
    exchange.log.clear()
    again = backfill(lake, "2025-12-05", "2025-12-10")
    assert (again.total("new"), again.total("repeated"), again.total("restated")) == (144, 0, 0)
    inside = [(low, high) for _, _, low, high in exchange.asked()]
    seventh, ninth = datetime(2025, 12, 7, tzinfo=UTC), datetime(2025, 12, 9, tzinfo=UTC)
    assert len(inside) == 4
    assert all(high < seventh or low >= ninth for low, high in inside)
    assert_is(exchange, lake, Timeframe.H1, "2025-12-05", "2025-12-10")
    assert not stored(lake.storage_path, H1, "BTCUSD").index.has_duplicates
    exchange.log.clear()
    backfill(lake, "2025-12-05", "2025-12-10")
    assert exchange.log == []


def test_bad_bars_are_undone_and_those_built_from_them_are_built_again(lake, exchange):
    backfill(lake, "2025-12-07", "2025-12-08", "1h", "4h")
    good = version(lake)
    exchange.edit = lambda rows: [[row[0], row[1], row[2] + 500, *row[3:]] for row in rows]
    backfill(lake, "2025-12-07", "2025-12-09", "1h", "4h", force=True)
    exchange.edit = lambda rows: rows
    # Four-hour bars are the wrong ones now.
    with pytest.raises(AssertionError):
        assert_is(exchange, lake, Timeframe.H4, "2025-12-07", "2025-12-09")
    lake.restore_table(H1, good)
    assert_is(exchange, lake, Timeframe.H1, "2025-12-07", "2025-12-08")
    backfill(lake, "2025-12-07", "2025-12-09", "1h", "4h")
    for frame in (Timeframe.H1, Timeframe.H4):
        assert_is(exchange, lake, frame, "2025-12-07", "2025-12-09")


def test_killed_between_the_two_commits_nothing_is_lost(lake, exchange, monkeypatch):
    backfill(lake, "2025-12-07", "2025-12-08")
    kept = version(lake)
    backfill(lake, "2025-12-08", "2025-12-09")

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(restoring, "_restore", killed)
        with pytest.raises(KeyboardInterrupt):
            lake.restore_table(H1, kept)
    assert count(lake.storage_path)[H1] == 96
    again = backfill(lake, "2025-12-07", "2025-12-09")
    assert (again.total("new"), again.total("repeated")) == (0, 48)
    assert not stored(lake.storage_path, H1, "ETHUSD").index.has_duplicates
    lake.restore_table(H1, kept)
    assert backfill(lake, "2025-12-07", "2025-12-09").total("new") == 48
    assert_is(exchange, lake, Timeframe.H1, "2025-12-07", "2025-12-09")


def test_a_restore_is_undone_by_a_restore(lake, exchange):
    backfill(lake, "2025-12-07", "2025-12-08")
    before = version(lake)
    backfill(lake, "2025-12-08", "2025-12-09")
    first = lake.restore_table(H1, before)
    undone = lake.restore_table(H1, first.version - 1)
    assert (undone.rows_added, undone.rows_removed) == (48, 0)
    assert count(lake.storage_path)[H1] == 96
    again = backfill(lake, "2025-12-07", "2025-12-09")
    assert (again.total("new"), again.total("repeated")) == (0, 48)
    assert_is(exchange, lake, Timeframe.H1, "2025-12-07", "2025-12-09")


def test_an_append_after_a_restore_lands_and_is_not_taken_for_done(embedded_lake):
    lake = embedded_lake
    lake.append(H1, bars(count=4), "a")
    kept = version(lake)
    for step in range(1, 4):
        lake.append(H1, bars(start=DAY0 + timedelta(hours=4 * step), count=4), f"b{step}")
    lake.restore_table(H1, kept)
    assert lake.append(H1, bars(start=DAY0 + timedelta(hours=4), count=4), "c").new == 8
    assert lake.append(H1, bars(start=DAY0 + timedelta(hours=4), count=4), "d").rows == 0
    assert count(lake.storage_path)[H1] == 16


@pytest.mark.spark
def test_spark_goes_on_after_a_restore_and_after_a_commit_that_was_set_aside(spark, tmp_path):
    config = make_settings(tmp_path, {"storage": {"engine": "spark"}})
    lake = DeltaLakeManager(config.delta_lake.storage_path, config)
    for day in range(3):
        lake.append(H1, bars(start=DAY0 + timedelta(days=day), count=4), f"r{day}")
    lake.restore_table(H1, version(lake) - 1)
    assert spark.read.format("delta").load(f"{lake.storage_path}/{H1}").count() == 16
    assert lake.append(H1, bars(start=DAY0 + timedelta(days=2), count=4), "again").new == 8
    cut(commit_file(lake.storage_path, H1, version(lake)))
    assert lake.repair(H1).left.ok
    assert lake.append(H1, bars(start=DAY0 + timedelta(days=2), count=4), "and again").new == 8
    data_file(lake.storage_path, H1).unlink()
    assert lake.repair(H1).left.ok
    assert lake.append(H1, bars(start=DAY0 + timedelta(days=9), count=4), "more").new == 8
    assert spark.read.format("delta").load(f"{lake.storage_path}/{H1}").count() == 28
    assert lake.fsck(H1, deep=True).ok


def test_an_instant_and_a_snapshot_name_a_version_too(embedded_lake):
    lake = embedded_lake
    lake.append(H1, bars(count=4), "a")
    instant = utc_now()
    lake.snapshots.create("before")
    lake.append(H1, bars(start=DAY0 + timedelta(days=1), count=4), "b")
    planned = lake.restore_table(H1, as_of_timestamp=instant, dry_run=True)
    assert (planned.rows_removed, planned.version, planned.dry_run) == (8, version(lake), True)
    assert count(lake.storage_path)[H1] == 16
    assert lake.restore_table(H1, snapshot="before").restored == planned.restored
    assert count(lake.storage_path)[H1] == 8


def test_what_cannot_be_restored_is_refused_by_name(embedded_lake):
    lake = embedded_lake
    lake.append(H1, bars(count=4), "a")
    lake.coverage.record([], "r")
    with pytest.raises(InvalidRangeError, match="a version, an instant or a snapshot"):
        lake.restore_table(H1)
    with pytest.raises(InvalidRangeError, match="not several"):
        lake.restore_table(H1, version=1, snapshot="x")
    with pytest.raises(InvalidRangeError, match="is at version"):
        lake.restore_table(H1, version=version(lake))
    with pytest.raises(InvalidRangeError, match="is a log"):
        lake.restore_table("ingest_coverage", version=0)
    with pytest.raises(TableNotFoundError):
        lake.restore_table(H4, version=0)
    with pytest.raises(StorageError, match="version 99"):
        lake.restore_table(H1, version=99)


def test_vacuumed_versions_are_refused_and_whole_ones_named(lake, exchange):
    for day in (7, 8, 9):
        backfill(lake, f"2025-12-0{day}", f"2025-12-{day + 1:02}")
    last = version(lake)
    lake.restore_table(H1, last - 2)
    newest = backfill(lake, "2025-12-09", "2025-12-10").total("new")
    assert newest == 48
    lake.vacuum_table(H1, retention_hours=0, force=True)
    with pytest.raises(StorageError, match=rf"4 files of version {last} .* whole: .*{last - 2}"):
        lake.restore_table(H1, last)
    forced = lake.restore_table(H1, last, force=True)
    assert len(forced.missing) == 4
    assert count(lake.storage_path)[H1] == 48
    backfill(lake, "2025-12-07", "2025-12-10")
    assert_is(exchange, lake, Timeframe.H1, "2025-12-07", "2025-12-10")


def test_the_command_says_what_it_does(lake, exchange, tmp_path):
    backfill(lake, "2025-12-07", "2025-12-08")
    kept = version(lake)
    backfill(lake, "2025-12-08", "2025-12-09")
    at = ["--lake", lake.storage_path]
    planned = run(tmp_path, "restore", H1, "--version", str(kept), "--dry-run", *at)
    assert planned.exit_code == 0, planned.output
    assert "Dry run" in planned.stdout
    assert "48 rows" in planned.stdout
    assert count(lake.storage_path)[H1] == 96
    done = run(tmp_path, "restore", H1, "--version", str(kept), *at)
    assert done.exit_code == 0
    assert "BTCUSD" in done.stdout
    assert "2025-12-08 00:00  2025-12-09 00:00" in done.stdout
    assert f"lakehouse restore {H1} --version {kept + 1} --lake {lake.storage_path}" in done.stdout
    assert count(lake.storage_path)[H1] == 48
    undone = run(tmp_path, "restore", H1, "--version", str(kept + 1), "--json", *at)
    assert json.loads(undone.stdout)["rows_added"] == 48
    assert run(tmp_path, "restore", H1, *at).exit_code == 2
    assert run(tmp_path, "restore", "raw_market_data_9h", "--version", "1", *at).exit_code == 2
