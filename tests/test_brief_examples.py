"""Every Python example that users were given, as written, against local servers in the providers' own formats."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest

from pipelines.batch import BatchDataIngester
from pipelines.config import Settings
from pipelines.data_quality import DataQualityFramework
from pipelines.errors import InvalidRangeError, SourceError
from pipelines.instruments import load_registry
from pipelines.monitoring.metrics import ingestion_duration_seconds, ingestion_records_total
from pipelines.sources.alpha_vantage import AlphaVantageProvider
from pipelines.sources.base import MARKET_DATA, Window
from pipelines.storage import DeltaLakeManager
from pipelines.timeframes import Timeframe
from tests.batch.exchange import Exchange, exchange_settings
from tests.conftest import make_settings
from tests.servers.alpha_vantage import KEY, AlphaVantageServer
from tests.servers.base import status

TABLE = "raw_market_data_1h"
NOW = datetime(2025, 12, 31, 0, 30, tzinfo=UTC)
HOURS_OF_2025 = 364 * 24


@pytest.fixture(scope="module")
def vendor() -> Iterator[AlphaVantageServer]:
    with AlphaVantageServer(clock=lambda: NOW) as server:
        server.trailing = timedelta(days=366)
        yield server


@pytest.fixture(scope="module")
def config(vendor: AlphaVantageServer, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    fast = {"base_url": vendor.url, "requests_per_minute": 600_000, "backoff_seconds": 0.001, "api_key": KEY}
    return make_settings(tmp_path_factory.mktemp("brief"), {"providers": {"alpha_vantage": fast}})


@pytest.fixture(scope="module")
def delta_mgr(spark: object, config: Settings) -> DeltaLakeManager:
    """The lake after the first example, "ingest historical data"; the tests below read it in the order of the brief."""
    delta_mgr = DeltaLakeManager(storage_path=config.delta_lake.storage_path, settings=config)
    ingester = BatchDataIngester(delta_mgr, config, clock=lambda: NOW)
    result = asyncio.run(
        ingester.ingest_historical_data(
            asset_pair="BTCUSD",
            timeframe="1h",
            start_date="2025-01-01",
            end_date="2025-12-31",
            provider="alpha_vantage",
        )
    )
    assert result.ok
    assert (result.new, result.served) == (HOURS_OF_2025, {"alpha_vantage": HOURS_OF_2025})
    return delta_mgr


@pytest.mark.spark
def test_historical_data_lands_as_the_vendor_has_it(delta_mgr: DeltaLakeManager, vendor: AlphaVantageServer) -> None:
    start, end = datetime(2025, 1, 1, tzinfo=UTC), datetime(2025, 12, 31, tzinfo=UTC)
    truth = vendor.truth(vendor.crypto["BTC", "USD"], start, end, 3600)
    stored = delta_mgr.read_table(TABLE, columns=["timestamp", "open", "high", "low", "close", "volume"])
    assert len(stored) == HOURS_OF_2025
    assert stored["close"].tolist() == [bar.close for bar in truth]
    assert stored["timestamp"].iloc[[0, -1]].tolist() == [start, end - timedelta(hours=1)]


@pytest.mark.spark
async def test_incremental_backfill(spark: object, tmp_path: Path) -> None:
    with Exchange() as exchange:
        config = exchange_settings(tmp_path, exchange)
        delta_mgr = DeltaLakeManager(storage_path=config.delta_lake.storage_path, settings=config)
        ingester = BatchDataIngester(delta_mgr, config)
        first = await ingester.ingest_historical_data(
            asset_pair="BTCUSD", timeframe="1h", start_date="2024-01-01", end_date="2025-12-14"
        )
        assert first.new == 713 * 24
        assert first.watermark == datetime(2025, 12, 13, 23, tzinfo=UTC)
        exchange.log.clear()
        second = await ingester.ingest_historical_data(
            asset_pair="BTCUSD", timeframe="1h", start_date="2024-01-01", end_date="2025-12-15"
        )
        assert (second.new, second.repeated) == (24, 0)
        assert second.watermark == datetime(2025, 12, 14, 23, tzinfo=UTC)
        assert [start for _, _, start, _ in exchange.asked()] == [datetime(2025, 12, 14, tzinfo=UTC)]


@pytest.mark.spark
def test_time_travel(delta_mgr: DeltaLakeManager) -> None:
    with pytest.raises(InvalidRangeError, match=r"its history goes from .* to now"):
        delta_mgr.read_table(table_name=TABLE, as_of_timestamp="2025-12-13T12:00:00")

    history = delta_mgr.get_table_history(TABLE)
    shown = history[["version", "timestamp", "operation"]]
    assert shown["version"].tolist() == list(range(len(history)))[::-1]
    assert shown["operation"].tolist()[0] == "WRITE"
    assert (
        history[["version", "operation", "operationMetrics"]]["operationMetrics"][0]["numOutputRows"] == HOURS_OF_2025
    )
    # An instant without a zone, as in the brief, is in UTC.
    landed, created = history["timestamp"].iloc[0], history["timestamp"].iloc[-1]
    now = delta_mgr.read_table(table_name=TABLE, as_of_timestamp=landed.tz_localize(None).isoformat())
    assert len(now) == len(delta_mgr.read_table(TABLE, version=int(history["version"].max()))) == HOURS_OF_2025
    assert delta_mgr.read_table(table_name=TABLE, as_of_timestamp=created).empty


@pytest.mark.spark
def test_upsert(delta_mgr: DeltaLakeManager) -> None:
    low, high = delta_mgr.read_table(
        TABLE, start="2025-12-14T10:00:00", end="2025-12-14T11:00:00", columns=["low", "high"]
    ).iloc[0]
    inside = round((low + high) / 2, 2)
    new_data = pd.DataFrame(
        [
            {"asset_pair": "BTCUSD", "timestamp": "2025-12-14 10:00:00", "close": inside},
            {"asset_pair": "BTCUSD", "timestamp": "2026-12-14 11:00:00", "close": 42600.0},
        ]
    )
    for updated, unchanged in ((1, 0), (0, 1)):
        result = delta_mgr.merge_upsert(
            df=new_data,
            table_name=TABLE,
            merge_keys=["asset_pair", "timestamp"],
            update_columns=["close"],
        )
        assert (result.updated, result.unchanged, result.inserted, result.rejected) == (updated, unchanged, 0, 1)
    versions = delta_mgr.read_table(TABLE, start="2025-12-14T10:00:00", end="2025-12-14T11:00:00")
    newest = versions.sort_values("ingested_at").iloc[-1]
    assert len(versions) == 2
    assert (newest["close"], newest["high"], newest["provider"]) == (inside, high, "alpha_vantage")
    # Raw data is append-only and complete: a close alone is no new bar.
    assert result.dlq_file is not None
    (record,) = json.loads(result.dlq_file.read_text())["records"]
    assert record["reason"].startswith("new key, and the row lacks open")


@pytest.mark.spark
def test_optimize(delta_mgr: DeltaLakeManager) -> None:
    before = len(delta_mgr.read_table(TABLE))
    done = delta_mgr.optimize_table(
        table_name=TABLE,
        zorder_columns=["asset_pair", "timestamp"],
    )
    assert done.files_added == 12 <= done.files_removed
    assert len(delta_mgr.read_table(TABLE)) == before


@pytest.mark.spark
def test_vacuum(delta_mgr: DeltaLakeManager) -> None:
    done = delta_mgr.vacuum_table(
        table_name=TABLE,
        retention_hours=720,
    )
    assert done.count == 0
    # Nothing here is 30 days old, so the first load can still be read.
    first_load = delta_mgr.get_table_history(TABLE).query("operation == 'WRITE'")["version"].min()
    assert len(delta_mgr.read_table(TABLE, version=int(first_load))) == HOURS_OF_2025


@pytest.mark.spark
def test_data_quality(
    delta_mgr: DeltaLakeManager, config: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dlq = tmp_path / "dlq"
    monkeypatch.setenv("LAKEHOUSE__DLQ__PATH", str(dlq))
    dq = DataQualityFramework()

    suite = dq.create_market_data_suite()
    assert suite.name == "market_data_quality"

    df = delta_mgr.read_table(TABLE)
    is_valid = dq.validate_dataframe(df, suite_name="market_data_quality")
    assert is_valid
    assert not dlq.exists()

    df.loc[3, "high"] = df.loc[3, "low"] - 1
    assert not dq.validate_dataframe(df, suite_name="market_data_quality")
    (file,) = dlq.glob("dlq_*.json")
    document = json.loads(file.read_text())
    assert (document["error"], document["context"]["provider"]) == ("schema_validation_failed", "alpha_vantage")
    assert "high < low" in document["records"][0]["reason"]


def test_metrics() -> None:
    records = ingestion_records_total.labels(
        asset_pair="BTCUSD",
        timeframe="1h",
        provider="alpha_vantage",
    )
    seconds = ingestion_duration_seconds.labels(
        asset_pair="BTCUSD",
        timeframe="1h",
    )
    before = _sample(ingestion_records_total, "_total"), _sample(ingestion_duration_seconds, "_sum")
    records.inc(1000)
    seconds.observe(15.5)
    after = _sample(ingestion_records_total, "_total"), _sample(ingestion_duration_seconds, "_sum")
    assert (after[0] - before[0], round(after[1] - before[1], 6)) == (1000, 15.5)
    assert "pipeline_ingestion_records" in ingestion_records_total.describe()[0].name


def _sample(metric: object, ending: str) -> float:
    """Sum a metric's samples for BTCUSD 1h, as a scrape would see them."""
    (family,) = metric.collect()  # type: ignore[attr-defined]
    labels = {"asset_pair": "BTCUSD", "timeframe": "1h"}
    found = (one for one in family.samples if one.name.endswith(ending) and labels.items() <= one.labels.items())
    return sum(one.value for one in found)


async def test_circuit_breaker_stats(vendor: AlphaVantageServer, config: Settings) -> None:
    plain = AlphaVantageProvider(api_key="…")
    stats = plain.get_circuit_breaker_stats()
    await plain.aclose()
    assert (stats["state"], stats["failure_count"]) == ("closed", 0)

    settings = config.providers.alpha_vantage.model_copy(update={"max_retries": 0, "breaker_failures": 2})
    provider = AlphaVantageProvider(settings, clock=lambda: NOW, api_key=KEY)
    window = Window(
        MARKET_DATA, "BTCUSD", NOW - timedelta(days=1), NOW, load_registry().resolve("BTCUSD"), Timeframe.H1
    )
    vendor.always(status(503))
    try:
        for failures in (1, 2):
            with pytest.raises(SourceError):
                await provider.fetch(window)
            assert provider.get_circuit_breaker_stats()["failure_count"] == failures
    finally:
        vendor.always(None)
        await provider.aclose()
    assert provider.get_circuit_breaker_stats()["state"] == "open"
