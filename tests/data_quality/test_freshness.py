"""Freshness against instants worked out by hand: markets that are closed are not late."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pyarrow as pa
import pytest

from pipelines.batch.coverage import COVERED
from pipelines.contracts import contract_for
from pipelines.data_quality import presence
from pipelines.data_quality.freshness import SeriesFreshness, freshness
from pipelines.instruments import AssetClass, Instrument, InstrumentRegistry
from pipelines.sources.base import MARKET_DATA
from pipelines.storage import CoverageEntry, DeltaLakeManager
from tests.storage.bars import bars


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def only(lake: DeltaLakeManager, now: str) -> SeriesFreshness:
    (found,) = freshness(lake, utc(now))
    return found


@pytest.mark.parametrize(
    ("pair", "timeframe", "last", "now", "due", "lag"),
    [
        # A bar closes at its open and a length; five minutes later it has to be there.
        ("BTCUSD", "1h", "2025-12-10T10:00", "2025-12-10T12:04:59", "2025-12-10T11:00", 0),
        ("BTCUSD", "1h", "2025-12-10T10:00", "2025-12-10T12:05:00", "2025-12-10T12:00", 60),
        ("BTCUSD", "1m", "2025-12-10T10:00", "2025-12-10T10:06:30", "2025-12-10T10:01", 0),
        ("BTCUSD", "1d", "2025-12-08T00:00", "2025-12-10T00:05:00", "2025-12-10T00:00", 1440),
        # Saturday, and Sunday before 17:00 in New York.
        ("EURUSD", "1m", "2025-12-05T21:59", "2025-12-07T22:05:59", "2025-12-05T22:00", 0),
        ("EURUSD", "1m", "2025-12-05T21:59", "2025-12-07T22:06:00", "2025-12-07T22:01", 2 * 1440 + 1),
        # A half-day: New York closed at 18:00 UTC.
        ("AAPL", "15m", "2023-11-24T17:45", "2023-11-26T23:00", "2023-11-24T18:00", 0),
        ("AAPL", "15m", "2023-11-24T17:30", "2023-11-26T23:00", "2023-11-24T18:00", 15),
        # Hours that begin with the session, at half past: the first of Monday closes at 15:30.
        ("AAPL", "1h", "2023-11-24T17:30", "2023-11-27T15:34", "2023-11-24T18:00", 0),
        ("AAPL", "1h", "2023-11-27T14:30", "2023-11-27T16:06", "2023-11-27T15:00", 0),
        # What is newer than due, as from trading on a holiday, is not late.
        ("AAPL", "1h", "2023-11-25T12:00", "2023-11-26T23:00", "2023-11-24T18:00", 0),
    ],
)
def test_a_series_lags_behind_the_bar_that_is_due(
    embedded_lake: DeltaLakeManager, pair: str, timeframe: str, last: str, now: str, due: str, lag: int
) -> None:
    rows = bars(timeframe, start=utc(last), count=1, assets=(pair,))
    embedded_lake.append(f"raw_market_data_{timeframe}", rows, "test")
    found = only(embedded_lake, now)
    assert (found.asset_pair, found.timeframe, found.due_close) == (pair, timeframe, utc(due))
    assert (found.lag, found.fresh) == (timedelta(minutes=lag), lag == 0)
    record = found.as_result()
    assert (record.kind, record.success, record.observed) == ("freshness", lag == 0, lag * 60.0)


def test_a_delisted_asset_is_not_late(embedded_lake: DeltaLakeManager, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = Instrument(pair="GONE", asset_class=AssetClass.EQUITY, calendar="XNYS", listed_until=date(2023, 11, 25))
    registry = InstrumentRegistry({"GONE": gone}, frozenset(), frozenset())
    monkeypatch.setattr(presence, "load_registry", lambda: registry)
    rows = bars("1h", start=utc("2023-11-24T17:00"), count=1, assets=("GONE",))
    embedded_lake.append("raw_market_data_1h", rows, "test")
    assert only(embedded_lake, "2026-01-01").fresh


def test_a_series_without_a_row_is_late_since_it_was_asked_for(embedded_lake: DeltaLakeManager) -> None:
    asked = utc("2025-12-10"), utc("2025-12-11")
    entry = CoverageEntry(MARKET_DATA, "BTCUSD", "1h", "coinbase", *asked, COVERED, 0)
    embedded_lake.coverage.record([entry], "test")
    found = only(embedded_lake, "2025-12-11T00:30")
    assert (found.newest_close, found.lag, found.fresh) == (None, timedelta(days=1), False)


def test_other_datasets_are_due_by_their_own_latency(embedded_lake: DeltaLakeManager) -> None:
    contract = contract_for("macro_indicators")
    row = {"series_id": "DGS10", "timestamp": utc("2025-12-09"), "value": 4.1, "provider": "fred"}
    names = [column.name for column in contract.columns if column.provided != "storage"]
    schema = pa.schema([contract.arrow_schema.field(name) for name in names])
    table = pa.Table.from_pylist([{name: row.get(name) for name in names}], schema=schema)
    embedded_lake.append("macro_indicators", table, "test")
    found = only(embedded_lake, "2025-12-10")
    assert (found.dataset, found.asset_pair, found.timeframe, found.fresh) == ("macro_indicators", "DGS10", None, True)
    late = only(embedded_lake, "2025-12-10T06:00")
    assert (late.lag, late.fresh) == (timedelta(hours=6), False)
    assert freshness(embedded_lake, utc("2025-12-10"), timeframes=["1h"]) == []
