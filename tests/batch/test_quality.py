"""What a run found at the edge is recorded: a row for the contract, and one for each reason."""

from __future__ import annotations

import asyncio
import json
import logging
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pipelines.batch.engine import Backfill
from pipelines.batch.jobs import bar_job
from pipelines.data_quality.reasons import kinds_of
from pipelines.storage import DeltaLakeManager
from pipelines.timeframes import utc_now
from tests.batch.exchange import Exchange, exchange_settings


@pytest.fixture
def lake(tmp_path: Path, exchange: Exchange) -> DeltaLakeManager:
    config = exchange_settings(tmp_path, exchange, {"storage": {"engine": "embedded"}})
    return DeltaLakeManager(config.delta_lake.storage_path, config)


def day(lake: DeltaLakeManager, **options: bool) -> str:
    jobs = [
        bar_job(asset, "1h", "2025-12-07", "2025-12-08", now=utc_now(), **options) for asset in ("BTCUSD", "ETHUSD")
    ]
    return asyncio.run(Backfill(lake, lake.settings).run(jobs)).run_id


def test_each_run_leaves_what_it_checked(lake: DeltaLakeManager, exchange: Exchange) -> None:
    bad = int(datetime(2025, 12, 7, 5, tzinfo=UTC).timestamp())
    exchange.edit = lambda rows: [[row[0], row[2] + 9, *row[2:]] if row[0] == bad else row for row in rows]
    first = day(lake)
    found = lake.quality.read(run_id=first).to_pylist()
    assert [(row["asset_pair"], row["check_name"]) for row in found] == [
        (asset, check)
        for asset in ("BTCUSD", "ETHUSD")
        for check in ("contract", "close not in range", "high < low", "open not in range")
    ]
    whole = found[0]
    assert (whole["rows_checked"], whole["rows_failed"], whole["success"]) == (24, 1, False)
    assert (whole["table_name"], whole["provider"], whole["kind"]) == ("raw_market_data_1h", "coinbase", "edge")
    assert json.loads(whole["details"]) == {"new": 23, "restated": 0, "repeated": 0}
    exchange.edit = lambda rows: rows
    assert lake.quality.read(run_id=day(lake)).num_rows == 0
    again = lake.quality.read(run_id=day(lake, force=True)).to_pylist()
    assert [(row["check_name"], row["success"], row["rows_checked"]) for row in again] == [("contract", True, 24)] * 2
    assert lake.quality.read(kind="edge").num_rows == 10


def test_a_batch_refused_whole_is_one_kind_of_reason(lake: DeltaLakeManager, exchange: Exchange) -> None:
    exchange.edit = lambda rows: [[row[0], row[2] + 9, *row[2:]] if i % 8 == 0 else row for i, row in enumerate(rows)]
    found = {row["check_name"]: row for row in lake.quality.read(run_id=day(lake)).to_pylist()}
    assert (found["contract"]["rows_failed"], found["batch refused"]["rows_failed"]) == (24, 21)


def test_rows_land_even_where_results_cannot_be_recorded(
    lake: DeltaLakeManager, caplog: pytest.LogCaptureFixture
) -> None:
    lake.quality.record([], "nothing")
    (Path(lake.storage_path) / "quality_results").mkdir(parents=True)
    (Path(lake.storage_path) / "quality_results" / "_delta_log").write_text("in the way")
    with caplog.at_level(logging.WARNING):
        day(lake)
    assert lake.read_arrow("raw_market_data_1h").num_rows == 48
    assert "the results of the checks were not recorded" in caplog.text


@pytest.mark.parametrize(
    ("reason", "kinds"),
    [
        ("high < low; close not in range", ["high < low", "close not in range"]),
        ("batch refused: 12.5% of 24 rows failed, over the limit", ["batch refused"]),
        ("line 17 has 3 fields, not 6: 'a; b'", ["malformed line"]),
        ("unreadable timestamp '20x5; 01'; negative volume", ["unreadable timestamp", "negative volume"]),
    ],
)
def test_reasons_are_counted_without_the_values_of_a_row(reason: str, kinds: list[str]) -> None:
    assert kinds_of(reason) == kinds
