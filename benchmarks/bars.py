"""A fixed set of minute bars for the storage benchmarks: every contestant writes the same rows."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pyarrow as pa

ASSETS = ("BTCUSD", "ETHUSD", "SOLUSD", "ADAUSD", "XRPUSD", "ETHBTC", "LTCBTC", "DOGEUSD", "AVAXUSD", "LINKUSD")
START = datetime(2025, 1, 1, tzinfo=UTC)
_MINUTE = 60_000_000
A_DAY = 1_440


def bars(days: int, first_day: int = 0) -> pa.Table:
    """Return every minute of `days` days of ten assets: the columns that a source and the edge give."""
    return pa.concat_tables(_series(place, asset, days, first_day) for place, asset in enumerate(ASSETS))


def _series(place: int, asset: str, days: int, first_day: int) -> pa.Table:
    count = days * A_DAY
    rng = np.random.default_rng([place, first_day])
    opened = (int(START.timestamp()) * 1_000_000) + (first_day * A_DAY + np.arange(count)) * _MINUTE
    close = np.round(100 + np.cumsum(rng.normal(0, 0.01, count)), 4)
    spread = np.round(rng.uniform(0.01, 0.05, count), 4)
    return pa.table(
        {
            "asset_pair": pa.repeat(asset, count),
            "timeframe": pa.repeat("1m", count),
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
