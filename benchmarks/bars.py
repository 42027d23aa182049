"""A fixed set of minute bars for the storage benchmarks: every contestant writes the same rows."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pyarrow as pa

ASSETS = ("BTCUSD", "ETHUSD", "SOLUSD", "ADAUSD", "XRPUSD", "ETHBTC", "LTCBTC", "DOGEUSD", "AVAXUSD", "LINKUSD")
START = datetime(2025, 1, 1, tzinfo=UTC)
_MINUTE = 60_000_000
A_DAY = 1_440
MINUTES = {"1m": 1, "5m": 5, "15m": 15, "1h": 60, "4h": 240, "1d": A_DAY}


def bars(days: int, first_day: int = 0, timeframe: str = "1m") -> pa.Table:
    """Return every bar of `days` days of ten assets: the columns that a source and the edge give."""
    return pa.concat_tables(_series(place, asset, days, first_day, timeframe) for place, asset in enumerate(ASSETS))


def _series(place: int, asset: str, days: int, first_day: int, timeframe: str) -> pa.Table:
    step = MINUTES[timeframe]
    count = days * A_DAY // step
    rng = np.random.default_rng([place, first_day])
    opened = (int(START.timestamp()) * 1_000_000) + (first_day * A_DAY + np.arange(count) * step) * _MINUTE
    close = np.round(100 + np.cumsum(rng.normal(0, 0.01, count)), 4)
    spread = np.round(rng.uniform(0.01, 0.05, count), 4)
    return pa.table(
        {
            "asset_pair": pa.repeat(asset, count),
            "timeframe": pa.repeat(timeframe, count),
            "timestamp": pa.array(opened, pa.timestamp("us", "UTC")),
            "open": close,
            "high": close + spread,
            "low": close - spread,
            "close": close,
            "volume": np.round(rng.lognormal(0, 1, count), 6),
            "provider": pa.repeat("coinbase", count),
            "price_side": pa.repeat("trade", count),
            "is_adjusted": pa.repeat(pa.scalar(False), count),
            "is_derived": pa.repeat(pa.scalar(False), count),
        }
    )
