"""A fixed made-up history of candles: every contestant gets the same bars."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np

END = datetime(2025, 12, 1, tzinfo=UTC)
PRODUCTS = {"BTC-USD": 90_000.0, "ETH-USD": 3_000.0}
NATIVE = {"1m": 60, "5m": 300, "15m": 900, "1h": 3_600, "1d": 86_400}
SECONDS = {**NATIVE, "4h": 14_400}
_MINUTE_STEP = 0.0004


@dataclass(frozen=True, slots=True)
class Candles:
    """Columns of one product and granularity, oldest first; `time` is a bar's open in Unix seconds."""

    time: np.ndarray
    open: np.ndarray
    high: np.ndarray
    low: np.ndarray
    close: np.ndarray
    volume: np.ndarray


def start_of(days: int) -> datetime:
    """Return the first instant of a history of so many days."""
    return END - timedelta(days=days)


def expected_rows(days: int, assets: int = len(PRODUCTS), timeframes: Sequence[str] = tuple(SECONDS)) -> int:
    """Return how many bars the timeframes hold."""
    return assets * sum(days * 86_400 // SECONDS[name] for name in timeframes)


def minutes(product: str, days: int) -> Candles:
    """Make the product's 1m candles: a seeded random walk, prices to the cent, volumes to eight decimals."""
    count = days * 1_440
    random = np.random.default_rng(sorted(PRODUCTS).index(product))
    path = PRODUCTS[product] * np.exp(np.cumsum(random.normal(0, _MINUTE_STEP, count + 1)))
    opens, closes = np.round(path[:-1], 2), np.round(path[1:], 2)
    reach = random.uniform(0, _MINUTE_STEP, (2, count))
    return Candles(
        time=np.arange(count, dtype=np.int64) * 60 + int(start_of(days).timestamp()),
        open=opens,
        high=np.round(np.maximum(opens, closes) * (1 + reach[0]), 2),
        low=np.round(np.minimum(opens, closes) * (1 - reach[1]), 2),
        close=closes,
        volume=np.round(random.exponential(2.0, count), 8),
    )


def aggregated(base: Candles, seconds: int) -> Candles:
    """Aggregate 1m candles, which must fill whole bars."""
    per_bar = seconds // 60

    def folded(values: np.ndarray) -> np.ndarray:
        return values.reshape(-1, per_bar)

    return Candles(
        time=folded(base.time)[:, 0],
        open=folded(base.open)[:, 0],
        high=folded(base.high).max(axis=1),
        low=folded(base.low).min(axis=1),
        close=folded(base.close)[:, -1],
        volume=np.round(folded(base.volume).sum(axis=1), 8),
    )
