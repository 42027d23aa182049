"""The ingester against a local exchange: exact, incremental, restating, and never silent about what it refused."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pipelines.batch import BackfillResult, BatchDataIngester
from pipelines.batch.engine import Backfill
from pipelines.batch.jobs import bar_job
from pipelines.batch.plan import plan
from pipelines.config import Settings
from pipelines.errors import ConfigError, MixedOriginError
from pipelines.storage import DeltaLakeManager
from pipelines.timeframes import Timeframe, utc_now
from tests.batch.exchange import Exchange, assert_whole, count, exchange_settings, stored
from tests.servers.base import Fault, hang, status

pytestmark = [pytest.mark.spark, pytest.mark.usefixtures("spark")]

ASSETS = ["BTCUSD", "ETHUSD"]
START, END = "2025-12-07", "2025-12-14"


@pytest.fixture
def config(tmp_path: Path, exchange: Exchange) -> Settings:
    return exchange_settings(tmp_path, exchange)


@pytest.fixture
def lake(config: Settings) -> DeltaLakeManager:
    return DeltaLakeManager(config.delta_lake.storage_path, config)


def backfill(lake: DeltaLakeManager, start: str, end: str, **options: Any) -> BackfillResult:
    assets = options.pop("assets", ASSETS)
    timeframes = options.pop("timeframes", list(Timeframe))
    settings = options.pop("settings", lake.settings)
    clock = options.pop("clock", utc_now)
    jobs = [bar_job(a, t, start, end, now=clock(), **options) for a in assets for t in timeframes]
    return asyncio.run(Backfill(lake, settings, clock=clock).run(jobs))


def hour(lake: DeltaLakeManager, **options: Any) -> BackfillResult:
    """Backfill one asset's hourly bars of a day."""
    return backfill(lake, "2025-12-07", "2025-12-08", assets=["BTCUSD"], timeframes=["1h"], **options)


def test_a_week_lands_whole_once_and_grows_backwards(lake: DeltaLakeManager, exchange: Exchange) -> None:
    first = backfill(lake, START, END, provider="coinbase")
    assert first.ok
    assert first.total("new") == 25_970
    assert sum(count(lake.storage_path).values()) == 25_970
    assert_whole(exchange, lake.storage_path, ASSETS, START, END)

    exchange.log.clear()
    again = backfill(lake, START, END, provider="coinbase")
    assert again.ok
    assert again.total("fetched") == 0
    assert exchange.log == []
    assert sum(count(lake.storage_path).values()) == 25_970

    earlier = backfill(lake, "2025-12-05", END, provider="coinbase")
    assert earlier.total("new") == 2 * 25_970 // 7
    assert all(last < datetime(2025, 12, 7, tzinfo=UTC) for _, _, _, last in exchange.asked())
    assert_whole(exchange, lake.storage_path, ASSETS, "2025-12-05", END)


def test_no_bar_is_asked_for_twice_even_to_derive_four_hours(lake: DeltaLakeManager, exchange: Exchange) -> None:
    backfill(lake, START, END, assets=["BTCUSD"], timeframes=["1h", "4h"])
    asked = [(start, end) for _, step, start, end in exchange.asked() if step == 3600]
    assert len(asked) == len(set(asked)) == 1
    derived = stored(lake.storage_path, "raw_market_data_4h", "BTCUSD")
    assert derived["is_derived"].all()
    assert len(derived) == 42


def test_four_hours_alone_leave_no_other_table(lake: DeltaLakeManager, exchange: Exchange) -> None:
    assert backfill(lake, START, END, assets=["BTCUSD"], timeframes=["4h"]).total("new") == 42
    assert count(lake.storage_path) == {"raw_market_data_4h": 42}


def test_any_real_providers_coverage_counts_without_a_named_one(lake: DeltaLakeManager, exchange: Exchange) -> None:
    hour(lake, provider="coinbase")
    exchange.log.clear()
    assert hour(lake).total("fetched") == 0
    assert exchange.log == []


def test_no_trades_are_told_from_not_fetched(lake: DeltaLakeManager, exchange: Exchange) -> None:
    noon = int(datetime(2025, 12, 7, 12, tzinfo=UTC).timestamp())
    exchange.market("BTC-USD").gaps.append((noon, noon + 3 * 3600))
    result = hour(lake)
    assert result.ok
    assert (result.total("new"), result.series[0].coverage) == (21, 1.0)
    exchange.log.clear()
    hour(lake)
    assert exchange.log == []


def test_an_empty_young_tail_is_asked_for_again(lake: DeltaLakeManager, exchange: Exchange) -> None:
    now = datetime(2025, 12, 7, 12, 2, tzinfo=UTC)
    exchange.clock = lambda: now
    last = int(datetime(2025, 12, 7, 11, tzinfo=UTC).timestamp())
    exchange.market("BTC-USD").gaps.append((last, last + 3600))
    assert hour(lake, clock=lambda: now).total("new") == 11
    exchange.market("BTC-USD").gaps.clear()
    late = hour(lake, clock=lambda: now)
    assert late.total("new") == 1
    assert late.ok


def test_force_and_look_back_store_restatements_as_new_versions(lake: DeltaLakeManager, exchange: Exchange) -> None:
    hour(lake)
    late = int(datetime(2025, 12, 7, 22, tzinfo=UTC).timestamp())
    exchange.edit = lambda rows: [[*row[:2], row[2] + 5, *row[3:]] if row[0] == late else row for row in rows]
    assert hour(lake).total("fetched") == 0
    looking_back = lake.settings.model_copy(
        update={"ingest": lake.settings.ingest.model_copy(update={"lookback_bars": 3})}
    )
    result = hour(lake, settings=looking_back)
    assert (result.total("fetched"), result.total("restated"), result.total("repeated")) == (3, 1, 2)
    assert hour(lake, force=True).total("repeated") == 24
    versions = stored(lake.storage_path, "raw_market_data_1h", "BTCUSD").loc[datetime.fromtimestamp(late, UTC)]
    assert len(versions) == 2
    newest = versions.sort_values("ingested_at")
    assert newest["high"].iloc[1] == newest["high"].iloc[0] + 5


def test_refused_rows_go_to_the_dlq_and_are_not_asked_for_for_ever(lake: DeltaLakeManager, exchange: Exchange) -> None:
    bad = int(datetime(2025, 12, 7, 5, tzinfo=UTC).timestamp())
    exchange.edit = lambda rows: [[row[0], row[2] + 9, *row[2:]] if row[0] == bad else row for row in rows]
    result = hour(lake)
    assert (result.total("new"), result.total("rejected")) == (23, 1)
    (path,) = result.series[0].dlq_files
    document = json.loads(Path(path).read_text(encoding="utf-8"))
    assert document["error"] == "schema_validation_failed"
    assert document["context"]["asset_pair"] == "BTCUSD"
    assert "high < low" in document["records"][0]["reason"]
    exchange.log.clear()
    assert hour(lake).total("fetched") == 0
    exchange.edit = lambda rows: rows
    assert hour(lake, force=True).total("new") == 1
    assert hour(lake).series[0].coverage == 1.0


def test_too_many_refused_rows_refuse_the_batch(lake: DeltaLakeManager, exchange: Exchange) -> None:
    exchange.edit = lambda rows: [[row[0], row[2] + 9, *row[2:]] if i % 8 == 0 else row for i, row in enumerate(rows)]
    result = hour(lake)
    assert not result.ok
    assert (result.total("new"), result.total("rejected")) == (0, 24)
    assert "12.5% of 24 rows" in result.series[0].failed[0].error
    exchange.edit = lambda rows: rows
    assert hour(lake).total("new") == 24


def test_a_provider_that_is_down_fails_its_windows_by_name(lake: DeltaLakeManager, exchange: Exchange) -> None:
    exchange.always(status(503))
    result = hour(lake)
    assert not result.ok
    assert result.series[0].failed[0].provider == "coinbase"
    assert "503" in result.series[0].failed[0].error
    exchange.always(None)
    assert hour(lake).total("new") == 24


def test_the_chain_falls_back_and_says_why(lake: DeltaLakeManager, exchange: Exchange) -> None:
    chain = lake.settings.providers.model_copy(update={"chain": ["alpha_vantage", "oanda", "coinbase"]})
    result = hour(lake, settings=lake.settings.model_copy(update={"providers": chain}))
    assert result.ok
    assert result.series[0].served == {"coinbase": 24}
    assert "key" in result.series[0].skipped["alpha_vantage"].lower()
    assert "oanda" in result.series[0].skipped


def test_small_chunks_land_the_same(lake: DeltaLakeManager, exchange: Exchange) -> None:
    ingest = lake.settings.ingest.model_copy(update={"chunk_rows": 900, "windows_in_flight": 3})
    settings = lake.settings.model_copy(update={"ingest": ingest})
    assert backfill(lake, START, "2025-12-09", assets=["BTCUSD"], settings=settings).ok
    assert_whole(exchange, lake.storage_path, ["BTCUSD"], START, "2025-12-09")


def test_synthetic_and_real_data_do_not_mix(lake: DeltaLakeManager, exchange: Exchange) -> None:
    hour(lake)
    with pytest.raises(MixedOriginError, match="sample_storage_path"):
        hour(lake, provider="sample")
    assert count(lake.storage_path) == {"raw_market_data_1h": 24}


def test_an_unknown_provider_is_named(lake: DeltaLakeManager) -> None:
    with pytest.raises(ConfigError, match="coinbase"):
        hour(lake, provider="coinbse")


def test_the_plan_asks_nobody_and_counts_what_a_run_will_ask(lake: DeltaLakeManager, exchange: Exchange) -> None:
    jobs = [bar_job("BTCUSD", t, START, END, now=utc_now()) for t in Timeframe]
    planned = asyncio.run(plan(jobs, lake, lake.settings))
    assert exchange.log == []
    assert sum(series.bars for series in planned) == 12_985
    result = backfill(lake, START, END, assets=["BTCUSD"])
    assert sum(series.requests for series in planned) == result.requests == len(exchange.log)


async def test_the_briefs_incremental_example(lake: DeltaLakeManager, exchange: Exchange) -> None:
    ingester = BatchDataIngester(lake, lake.settings)
    first = await ingester.ingest_historical_data(
        asset_pair="BTCUSD", timeframe="1h", start_date="2025-12-01", end_date="2025-12-14"
    )
    assert first.watermark == datetime(2025, 12, 13, 23, tzinfo=UTC)
    exchange.log.clear()
    second = await ingester.ingest_historical_data(
        asset_pair="BTCUSD", timeframe="1h", start_date="2025-12-01", end_date="2025-12-15"
    )
    assert second.new == 24
    ((_, _, start, end),) = exchange.asked()
    assert (start, end) == (first.watermark + timedelta(hours=1), datetime(2025, 12, 14, 23, tzinfo=UTC))


async def test_a_stop_waits_for_no_answer_and_keeps_what_came(lake: DeltaLakeManager, exchange: Exchange) -> None:
    exchange.misbehave(*[Fault("none")] * 8)
    exchange.always(hang(30))
    job = bar_job("BTCUSD", "1m", START, END, now=utc_now())
    run = Backfill(lake, lake.settings)
    task = asyncio.create_task(run.run([job]))
    # The eight answers are in once each of their places has asked for something else.
    while len(exchange.log) < 8 + lake.settings.ingest.windows_in_flight:  # noqa: ASYNC110 - the server lives in threads
        await asyncio.sleep(0.01)
    run.stop()
    result = await asyncio.wait_for(task, timeout=25)
    assert result.interrupted
    assert not result.ok
    assert result.series[0].failed == []
    assert count(lake.storage_path) == {"raw_market_data_1m": 8 * 300}
    exchange.always(None)
    assert (await Backfill(lake, lake.settings).run([job])).total("new") == 7 * 1440 - 8 * 300
