"""Bars for storage tests: what the edge hands to storage."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pyarrow as pa

STEPS = {"1m": 60, "5m": 300, "15m": 900, "1h": 3600, "4h": 14400, "1d": 86400}
DAY0 = datetime(2025, 12, 7, tzinfo=UTC)


def bars(
    timeframe: str = "1h",
    *,
    start: datetime = DAY0,
    count: int = 48,
    assets: tuple[str, ...] = ("BTCUSD", "ETHUSD"),
    shift: float = 0.0,
    provider: str = "coinbase",
) -> pa.Table:
    """Return `count` bars of each asset."""
    return pa.concat_tables(_series(timeframe, start, count, asset, shift, provider) for asset in assets)


def _series(timeframe: str, start: datetime, count: int, asset: str, shift: float, provider: str) -> pa.Table:
    micros = (int(start.timestamp()) + np.arange(count) * STEPS[timeframe]) * 1_000_000
    close = 100 + shift + np.sin(np.arange(count) / 10)
    return pa.table(
        {
            "asset_pair": [asset] * count,
            "timeframe": [timeframe] * count,
            "timestamp": pa.array(micros, pa.timestamp("us", "UTC")),
            "open": close,
            "high": close + 1,
            "low": close - 1,
            "close": close,
            "volume": pa.array([None if i % 7 == 0 else float(i) for i in range(count)], pa.float64()),
            "provider": [provider] * count,
            "price_side": ["trade"] * count,
            "is_adjusted": [False] * count,
            "is_derived": [False] * count,
        }
    )
