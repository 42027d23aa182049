"""A backfill of an asset that was listed for some days only: nobody is asked for other time, and nothing fails."""

from __future__ import annotations

import asyncio
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from pipelines.batch import BackfillResult, jobs
from pipelines.batch.engine import Backfill
from pipelines.batch.jobs import bar_job
from pipelines.instruments import AssetClass, Instrument, InstrumentRegistry
from pipelines.storage import DeltaLakeManager
from pipelines.timeframes import utc_now
from tests.batch.exchange import Exchange, exchange_settings


@pytest.fixture
def lake(tmp_path: Path, exchange: Exchange, monkeypatch: pytest.MonkeyPatch) -> DeltaLakeManager:
    gone = Instrument(
        pair="BTCUSD", asset_class=AssetClass.CRYPTO, calendar="24/7", base="BTC", quote="USD",
        listed_from=date(2025, 12, 3), listed_until=date(2025, 12, 5),
    )  # fmt: skip
    registry = InstrumentRegistry({"BTCUSD": gone}, frozenset(), frozenset())
    monkeypatch.setattr(jobs, "load_registry", lambda: registry)
    settings = exchange_settings(tmp_path, exchange, {"storage": {"engine": "embedded"}})
    return DeltaLakeManager(settings.delta_lake.storage_path, settings)


def backfill(lake: DeltaLakeManager, start: str, end: str) -> BackfillResult:
    job = bar_job("BTCUSD", "1h", start, end, now=utc_now())
    return asyncio.run(Backfill(lake, lake.settings).run([job]))


@pytest.mark.parametrize(("start", "end"), [("2025-12-05", "2025-12-14"), ("2025-11-01", "2025-12-03")])
def test_a_range_outside_of_the_listing_is_done_without_a_request(
    lake: DeltaLakeManager, exchange: Exchange, start: str, end: str
) -> None:
    result = backfill(lake, start, end)
    assert (result.ok, result.requests, exchange.log) == (True, 0, [])
    assert (result.series[0].failed, result.series[0].coverage) == ([], 1.0)


def test_of_a_range_over_it_only_the_listing_is_asked_for(lake: DeltaLakeManager, exchange: Exchange) -> None:
    result = backfill(lake, "2025-11-20", "2025-12-20")
    assert (result.ok, result.total("new")) == (True, 48)
    ((_, _, first, last),) = exchange.asked()
    assert (first, last) == (datetime(2025, 12, 3, tzinfo=UTC), datetime(2025, 12, 4, 23, tzinfo=UTC))
