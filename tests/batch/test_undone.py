"""A backfill at work while its table is restored or repaired: nothing is claimed that is not there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from pipelines.batch.engine import Backfill
from pipelines.batch.jobs import bar_job
from pipelines.batch.results import BackfillResult
from pipelines.storage import DeltaLakeManager
from pipelines.storage import coverage as coverage_module
from pipelines.storage.coverage import CoverageLog
from pipelines.storage.lake import Lake
from pipelines.storage.recovery import repair as repairing
from pipelines.storage.recovery import restore as restoring
from pipelines.timeframes import Timeframe, utc_now
from tests.batch.exchange import Exchange, exchange_settings, stored, truth

H1 = "raw_market_data_1h"
FIRST, SECOND, THIRD = "2025-12-07", "2025-12-08", "2025-12-09"


@pytest.fixture
def lake(tmp_path: Path, exchange: Exchange) -> DeltaLakeManager:
    """A lake with one day of hourly bars."""
    config = exchange_settings(tmp_path, exchange, {"storage": {"engine": "embedded"}})
    found = DeltaLakeManager(config.delta_lake.storage_path, config)
    assert backfill(found, FIRST, SECOND).ok
    return found


def backfill(lake: DeltaLakeManager, start: str, end: str) -> BackfillResult:
    jobs = [bar_job(asset, "1h", start, end, now=utc_now()) for asset in ("BTCUSD", "ETHUSD")]
    return asyncio.run(Backfill(lake, lake.settings).run(jobs))


def newest(lake: DeltaLakeManager) -> int:
    return next(info.version for info in lake.tables() if info.name == H1)


def commit(lake: DeltaLakeManager, version: int) -> Path:
    return Path(lake.storage_path) / H1 / "_delta_log" / f"{version:020d}.json"


def assert_whole(lake: DeltaLakeManager, exchange: Exchange) -> None:
    """Assert that two days are there as the exchange has them, each bar once."""
    for asset in ("BTCUSD", "ETHUSD"):
        expected = truth(exchange, f"{asset[:3]}-{asset[3:]}", Timeframe.H1, FIRST, THIRD)
        found = stored(lake.storage_path, H1, asset)
        assert list(found.loc[FIRST:].index) == list(expected.index)


def restored(lake: DeltaLakeManager) -> None:
    lake.restore_table(H1, newest(lake) - 1)


def restored_and_appended_to(lake: DeltaLakeManager) -> None:
    restored(lake)
    other = DeltaLakeManager(lake.storage_path, lake.settings)
    assert backfill(other, "2025-12-01", "2025-12-02").ok


def repaired(lake: DeltaLakeManager) -> None:
    files = (Path(lake.storage_path) / H1).rglob("*ETHUSD/*.parquet")
    max(files, key=lambda path: path.stat().st_mtime_ns).unlink()
    assert lake.repair(H1).left.ok


def last_commit_set_aside(lake: DeltaLakeManager) -> None:
    path = commit(lake, newest(lake))
    path.write_bytes(path.read_bytes()[:100])
    assert lake.repair(H1).left.ok


@pytest.mark.parametrize("undo", [restored, restored_and_appended_to, repaired, last_commit_set_aside])
def test_what_is_undone_between_append_and_record_is_not_claimed(
    lake, exchange, monkeypatch, undo: Callable[[DeltaLakeManager], None]
):
    record = CoverageLog.record

    def late(self: CoverageLog, *arguments: object, **options: object) -> object:
        monkeypatch.setattr(CoverageLog, "record", record)
        undo(DeltaLakeManager(lake.storage_path, lake.settings))
        return self.record(*arguments, **options)

    monkeypatch.setattr(CoverageLog, "record", late)
    result = backfill(lake, SECOND, THIRD)
    assert not result.ok
    assert {failed.error for series in result.series for failed in series.failed} == {
        f"not landed: {H1} was restored or repaired while it was appended to; run it again"
    }
    assert {series.coverage for series in result.series} == {0.0}
    assert {series.watermark for series in result.series} == {None}
    again = backfill(lake, FIRST, THIRD)
    assert again.ok
    assert again.total("new") == (24 if undo is repaired else 48)
    assert_whole(lake, exchange)
    exchange.log.clear()
    assert backfill(lake, FIRST, THIRD).ok
    assert exchange.log == []


def test_an_append_of_another_writer_is_no_reason_to_ask_again(lake, exchange, monkeypatch):
    record = CoverageLog.record

    def late(self: CoverageLog, *arguments: object, **options: object) -> object:
        monkeypatch.setattr(CoverageLog, "record", record)
        other = DeltaLakeManager(lake.storage_path, lake.settings)
        assert backfill(other, "2025-12-01", "2025-12-02").ok
        return self.record(*arguments, **options)

    monkeypatch.setattr(CoverageLog, "record", late)
    assert backfill(lake, SECOND, THIRD).ok
    exchange.log.clear()
    assert backfill(lake, FIRST, THIRD).ok
    assert exchange.log == []
    assert_whole(lake, exchange)


def test_a_table_that_nobody_else_writes_is_not_opened_again(lake, monkeypatch):
    version = newest(lake)
    monkeypatch.setattr(Lake, "open", None)
    assert lake.undone_since(H1, version) is False
    assert lake.undone_since(H1, version + 1) is True
    assert lake.undone_since("raw_market_data_4h", 0) is True


@pytest.mark.parametrize("how", ["restore", "repair"])
def test_what_is_recorded_in_the_middle_of_it_is_taken_back(lake, exchange, monkeypatch, how: str):
    """A record may be dated long before it lands: it has waited for its turn."""
    before = newest(lake)
    assert backfill(lake, SECOND, THIRD).ok
    standing = lake.coverage.read().to_pylist()
    entries = [
        coverage_module.CoverageEntry(**{name: row[name] for name in coverage_module.CoverageEntry.__slots__})
        for row in standing
        if row["start"].date().isoformat() == SECOND
    ]
    assert len(entries) == 2

    def recorded() -> None:
        # Dated right after the retraction, which stands already.
        dated = max(row["recorded_at"] for row in lake.coverage.read().to_pylist())
        with monkeypatch.context() as patch:
            patch.setattr(coverage_module, "utc_now", lambda: dated + timedelta(microseconds=1))
            lake.coverage.record(entries, "late")

    real = restoring._restore

    def in_the_middle(*arguments: object, **options: object) -> None:
        recorded()
        real(*arguments, **options)

    if how == "restore":
        monkeypatch.setattr(restoring, "_restore", in_the_middle)
        lake.restore_table(H1, before)
    else:
        path = commit(lake, newest(lake))
        path.write_bytes(path.read_bytes()[:100])
        aside = repairing._Mender._log_file_aside

        def recorded_before(self: object, name: str) -> None:
            recorded()
            aside(self, name)

        monkeypatch.setattr(repairing._Mender, "_log_file_aside", recorded_before)
        assert lake.repair(H1).left.ok
    assert backfill(lake, FIRST, THIRD).total("new") == 48
    assert_whole(lake, exchange)
