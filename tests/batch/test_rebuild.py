"""Rebuilding: a table that is gone or broken comes back whole, also when the rebuild is killed on its way."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path

import pytest

from pipelines.batch.engine import Backfill
from pipelines.batch.jobs import bar_job, dataset_job
from pipelines.batch.load import FileLoad
from pipelines.batch.progress import Progress
from pipelines.batch.rebuild import Rebuild
from pipelines.batch.results import BackfillResult
from pipelines.errors import InvalidRangeError, StorageError, TableNotFoundError
from pipelines.instruments import load_registry
from pipelines.sources.files import FileSpec
from pipelines.storage import DeltaLakeManager
from pipelines.timeframes import Timeframe, utc_now
from tests.batch.exchange import Exchange, assert_whole, count, exchange_settings, stored
from tests.cli.shell import run
from tests.conftest import make_settings
from tests.servers.base import status

H1, H4 = "raw_market_data_1h", "raw_market_data_4h"
START, END = "2025-12-07", "2025-12-09"
ASSETS = ["BTCUSD", "ETHUSD"]


@pytest.fixture
def lake(tmp_path: Path, exchange: Exchange) -> DeltaLakeManager:
    """A lake with two days of all timeframes."""
    config = exchange_settings(tmp_path, exchange, {"storage": {"engine": "embedded"}})
    found = DeltaLakeManager(config.delta_lake.storage_path, config)
    assert backfill(found).ok
    return found


def backfill(lake: DeltaLakeManager) -> BackfillResult:
    jobs = [bar_job(asset, frame, START, END, now=utc_now()) for frame in Timeframe for asset in ASSETS]
    return asyncio.run(Backfill(lake, lake.settings).run(jobs))


def rebuilt(lake: DeltaLakeManager, table: str) -> bool:
    return asyncio.run(Rebuild(lake, lake.settings, table).run()).ok


@pytest.mark.parametrize("table", [H1, H4])
def test_a_lost_table_comes_back_whole(lake, exchange, table: str):
    shutil.rmtree(Path(lake.storage_path) / table)
    assert rebuilt(lake, table)
    assert_whole(exchange, lake.storage_path, ASSETS, START, END)
    exchange.log.clear()
    assert backfill(lake).total("fetched") == 0
    assert exchange.log == []
    assert list((Path(lake.storage_path) / "_rebuild").iterdir()) == []
    assert all(lake.fsck(name).ok for name in lake.known_tables())


def test_bars_that_are_built_from_others_ask_nobody(lake, exchange):
    shutil.rmtree(Path(lake.storage_path) / H4)
    exchange.log.clear()
    assert rebuilt(lake, H4)
    assert exchange.log == []


def test_a_table_with_a_broken_log_is_set_aside_and_comes_back(lake, exchange):
    folder = Path(lake.storage_path) / H1
    (folder / "_delta_log" / f"{1:020d}.json").unlink()
    result = asyncio.run(Rebuild(lake, lake.settings, H1).run())
    assert result.ok
    assert result.plan.rows is None
    assert result.rows == {"BTCUSD": 48, "ETHUSD": 48}
    aside = Path(lake.storage_path) / result.plan.aside
    assert len(list(aside.rglob("*.parquet"))) == 2
    assert lake.known_tables() == [
        "ingest_coverage",
        "quality_results",
        *(f"raw_market_data_{t}" for t in sorted(Timeframe)),
    ]
    assert_whole(exchange, lake.storage_path, ASSETS, START, END)


def test_a_sound_table_is_rebuilt_to_the_same(lake, exchange):
    result = asyncio.run(Rebuild(lake, lake.settings, H1).run())
    assert result.plan.rows == result.rows == {"BTCUSD": 48, "ETHUSD": 48}
    assert_whole(exchange, lake.storage_path, ASSETS, START, END)


class _KilledError(BaseException):
    pass


class _Killer(Progress):
    def landed(self, rows: int) -> None:
        raise _KilledError


@pytest.mark.parametrize("where", ["planned", "retracted", "aside", "landed"])
def test_a_killed_rebuild_is_gone_on_with(lake, exchange, monkeypatch, where: str):
    def killed(*_: object, **__: object) -> None:
        raise _KilledError

    with monkeypatch.context() as patch:
        if where == "planned":
            patch.setattr(type(lake.coverage), "retract", killed)
        elif where == "retracted":
            patch.setattr(type(lake.rebuilds), "_set_aside", killed)
        elif where == "aside":
            patch.setattr(Backfill, "run", killed)
        run_ = Rebuild(lake, lake.settings, H1, _Killer() if where == "landed" else None)
        with pytest.raises((_KilledError, BaseExceptionGroup)):
            asyncio.run(run_.run())
    plan = Path(lake.storage_path) / "_rebuild" / f"{H1}.json"
    assert json.loads(plan.read_text())["started"] is (where in ("aside", "landed"))
    again = DeltaLakeManager(lake.storage_path, lake.settings)
    assert rebuilt(again, H1)
    assert not plan.exists()
    assert_whole(exchange, lake.storage_path, ASSETS, START, END)


def test_what_a_provider_does_not_give_again_is_named_and_asked_for_later(lake, exchange):
    shutil.rmtree(Path(lake.storage_path) / H1)
    exchange.always(status(503))
    result = asyncio.run(Rebuild(lake, lake.settings, H1).run())
    assert not result.ok
    assert not any(each.whole for each in result.kept)
    exchange.always(None)
    assert rebuilt(lake, H1)
    assert_whole(exchange, lake.storage_path, ASSETS, START, END)


def test_a_snapshot_of_the_old_table_is_not_taken_for_one_of_the_new(lake, exchange):
    lake.snapshots.create("before")
    with pytest.raises(StorageError, match="snapshots before pin"):
        rebuilt(lake, H1)
    assert_whole(exchange, lake.storage_path, ASSETS, START, END)
    lake.snapshots.delete("before")
    assert rebuilt(lake, H1)


def test_what_coverage_does_not_know_is_refused(lake):
    with pytest.raises(TableNotFoundError, match="knows nothing of macro_indicators"):
        Rebuild(lake, lake.settings, "macro_indicators")
    with pytest.raises(InvalidRangeError, match="fsck --repair"):
        Rebuild(lake, lake.settings, "ingest_coverage")


def test_rows_from_files_are_left_to_a_load(tmp_path: Path):
    settings = make_settings(tmp_path, {"storage": {"engine": "embedded"}})
    lake = DeltaLakeManager(settings.delta_lake.storage_path, settings)
    path = tmp_path / "btc.csv"
    path.write_text("timestamp,open,high,low,close,volume\n2025-12-07T00:00:00Z,100,101,99,100,5\n")
    spec = FileSpec(path=path, instrument=load_registry().resolve("BTCUSD"), timeframe=Timeframe.H1)
    assert asyncio.run(FileLoad(lake, settings).run(spec)).total("new") == 1
    found = Rebuild(lake, settings, H1)
    assert [promise.subject for promise in found.from_files] == ["BTCUSD"]
    assert found.jobs() == []
    result = asyncio.run(found.run())
    assert not result.ok
    assert asyncio.run(FileLoad(lake, settings).run(spec)).total("new") == 1
    assert rebuilt(lake, H1)


def test_other_datasets_are_rebuilt_too(tmp_path: Path):
    settings = make_settings(tmp_path, {"storage": {"engine": "embedded"}})
    lake = DeltaLakeManager(settings.delta_lake.storage_path, settings)
    table = "raw_news_sentiment"
    job = dataset_job(table, "BTCUSD", START, END, now=utc_now(), provider="sample", asset=True)
    rows = asyncio.run(Backfill(lake, settings).run([job])).total("new")
    assert rows
    shutil.rmtree(Path(lake.storage_path) / table)
    assert rebuilt(lake, table)
    assert count(lake.storage_path) == {table: rows}


def test_force_fetches_an_incomplete_range_again_without_duplicates(lake, exchange):
    from deltalake import DeltaTable

    folder = Path(lake.storage_path) / H1
    Path(next(uri for uri in DeltaTable(str(folder)).file_uris() if "BTCUSD" in uri)).unlink()
    DeltaTable(str(folder)).repair()
    assert stored(lake.storage_path, H1, "BTCUSD").empty
    jobs = [bar_job(asset, "1h", START, END, now=utc_now(), force=True) for asset in ASSETS]
    done = asyncio.run(Backfill(lake, lake.settings).run(jobs))
    assert (done.total("new"), done.total("repeated")) == (48, 48)
    assert_whole(exchange, lake.storage_path, ASSETS, START, END)


def test_the_command_plans_asks_and_says_what_came_back(tmp_path: Path):
    embedded = {"LAKEHOUSE__STORAGE__ENGINE": "embedded"}
    made = run(
        tmp_path, "backfill", "--provider", "sample", "--assets", "BTCUSD", "--start", START, "--end", END,
        "--timeframes", "1h,4h", **embedded,
    )  # fmt: skip
    assert made.exit_code == 0, made.output
    lake = tmp_path / "sample"
    shutil.rmtree(lake / H4)
    planned = run(tmp_path, "rebuild", H4, "--sample", "--dry-run", **embedded)
    assert planned.exit_code == 0, planned.output
    assert "2025-12-07 00:00  2025-12-09 00:00" in planned.stdout
    assert count(lake) == {H1: 48}
    refused = run(tmp_path, "rebuild", H4, "--sample", **embedded)
    assert refused.exit_code == 1
    assert count(lake) == {H1: 48}
    assert run(tmp_path, "rebuild", H4, "--sample", "--json", **embedded).exit_code == 2
    done = run(tmp_path, "rebuild", H4, "--sample", "--yes", **embedded)
    assert done.exit_code == 0, done.output
    assert "All that was covered is covered again" in done.stdout
    assert count(lake) == {H1: 48, H4: 12}
    again = json.loads(run(tmp_path, "rebuild", H1, "--sample", "--yes", "--json", **embedded).stdout)
    assert (again["ok"], again["rows_before"], again["rows"]) == (True, {"BTCUSD": 48}, {"BTCUSD": 48})
    assert run(tmp_path, "rebuild", "raw_market_data_1d", "--sample", "--yes", **embedded).exit_code == 2
