"""A lake with known troubles: what a quality report must tell of it is written down beside how each was made."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa

from pipelines.calendars import expected_opens
from pipelines.data_quality.dlq import DeadLetterQueue
from pipelines.edge import RefusedRow
from pipelines.instruments import load_registry
from pipelines.storage import CoverageEntry, DeltaLakeManager, QualityResult
from pipelines.timeframes import Timeframe

ASSETS = ("AAPL", "BTCUSD", "ETHUSD", "EURUSD")
START, END = datetime(2025, 11, 3, tzinfo=UTC), datetime(2025, 12, 1, tzinfo=UTC)
HOLE = (datetime(2025, 11, 12, 3, tzinfo=UTC), datetime(2025, 11, 13, 9, tzinfo=UTC))
REFUSED = datetime(2025, 11, 20, 15, tzinfo=UTC)
LATE = datetime(2025, 11, 25, tzinfo=UTC)
HOSTILE = "<script>console.error('boo')</script>"


@dataclass(slots=True)
class Troubles:
    """What was done to the lake: bars missing by asset, restated bars, and bars on which providers part."""

    missing: dict[str, int] = field(default_factory=dict)
    restated: int = 0
    apart: int = 0
    refused: int = 0


def make(lake: DeltaLakeManager, dlq: DeadLetterQueue) -> Troubles:
    """Fill an empty lake with four weeks of hourly and daily bars, and plant the troubles."""
    told = Troubles()
    for asset in ASSETS:
        for timeframe in (Timeframe.H1, Timeframe.D1):
            _series(lake, asset, timeframe, told)
    restated = _bars("BTCUSD", Timeframe.H1, _opens("BTCUSD", Timeframe.H1)[100:103], shift=2.5)
    lake.append("raw_market_data_1h", restated, "restated")
    told.restated = 3
    other = _bars("BTCUSD", Timeframe.H1, _opens("BTCUSD", Timeframe.H1)[:200], provider="alpha_vantage")
    closes = other["close"].to_numpy().copy()
    closes[[50, 150]] *= 1.02
    highs = np.maximum(other["high"].to_numpy(), closes)
    other = other.set_column(other.column_names.index("close"), "close", pa.array(closes))
    lake.append(
        "raw_market_data_1h", other.set_column(other.column_names.index("high"), "high", pa.array(highs)), "other"
    )
    # The two that were moved, and the three that the first provider has restated since.
    told.apart = 5
    rows = [RefusedRow({"open": 1.0, "note": HOSTILE}, reason, REFUSED) for reason in ("high < low", HOSTILE)]
    context = {"dataset": "raw_market_data", "asset_pair": "ETHUSD", "provider": "coinbase", "timeframe": "1h"}
    dlq.write("schema_validation_failed", context, rows)
    told.refused = 2
    (dlq.path / "dlq_2025-11-20T00-00-00_deadbeef.json").write_text('{"timestamp": "2025-11-20T00:00:00", "rec')
    failed = QualityResult("suite", "raw_market_data", "stale price", "warning", False, 672, 12, "raw_market_data_1h")
    lake.quality.record([failed], "checked")
    return told


def _series(lake: DeltaLakeManager, asset: str, timeframe: Timeframe, told: Troubles) -> None:
    opens = _opens(asset, timeframe)
    instants = opens.astype("datetime64[us]").astype(np.int64)
    kept = np.ones(len(opens), dtype=bool)
    if timeframe is Timeframe.H1 and asset == "BTCUSD":
        kept &= (instants < _micros(HOLE[0])) | (instants >= _micros(HOLE[1]))
    if timeframe is Timeframe.H1 and asset == "ETHUSD":
        kept &= instants != _micros(REFUSED)
    if asset == "EURUSD":
        # Not asked for from then on: stale, but not missing.
        kept &= instants < _micros(LATE)
    told.missing[f"{asset} {timeframe.value}"] = 0 if asset == "EURUSD" else int((~kept).sum())
    table = f"raw_market_data_{timeframe.value}"
    lake.append(table, _bars(asset, timeframe, opens[kept]), "first")
    end = LATE if asset == "EURUSD" else END
    spans = [("covered", START, end)]
    if asset == "ETHUSD" and timeframe is Timeframe.H1:
        hour = timedelta(hours=1)
        spans = [("covered", START, REFUSED), ("rejected", REFUSED, REFUSED + hour), ("covered", REFUSED + hour, END)]
    lake.coverage.record(
        [
            CoverageEntry("raw_market_data", asset, timeframe.value, "coinbase", first, last, status, 1)  # type: ignore[arg-type]
            for status, first, last in spans
        ],
        "first",
    )


def _opens(asset: str, timeframe: Timeframe) -> np.ndarray:
    return expected_opens(load_registry().resolve(asset), timeframe, START, END)


def _bars(
    asset: str, timeframe: Timeframe, opens: np.ndarray, *, shift: float = 0.0, provider: str = "coinbase"
) -> pa.Table:
    instants = opens.astype("datetime64[us]").astype(np.int64)
    close = 100 + shift + 5 * np.sin(instants / 3.6e9 / 50)
    count = len(close)
    return pa.table(
        {
            "asset_pair": [asset] * count,
            "timeframe": [timeframe.value] * count,
            "timestamp": pa.array(instants, pa.timestamp("us", "UTC")),
            "open": close,
            "high": close + 1,
            "low": close - 1,
            "close": close,
            "volume": np.full(count, 3.0),
            "provider": [provider] * count,
            "price_side": ["trade"] * count,
            "is_adjusted": [False] * count,
            "is_derived": [False] * count,
        }
    )


def _micros(instant: datetime) -> int:
    return int(instant.timestamp()) * 1_000_000
