"""A made-up market: the price is a function of the instant, so any request for a bar gives the same bar."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple, TypeAlias
from zlib import crc32

import numpy as np
import numpy.typing as npt

Instants: TypeAlias = npt.NDArray[np.int64]
Numbers: TypeAlias = npt.NDArray[np.float64]

_LEVELS = {"BTC": 90_000.0, "ETH": 3_000.0, "SOL": 150.0, "LTC": 100.0, "EUR": 1.1, "GBP": 1.3, "USD": 1.0}
_QUOTES = {"BTC": 90_000.0, "ETH": 3_000.0, "JPY": 1 / 150}


class Bar(NamedTuple):
    """A bar; `time` is its open in Unix seconds."""

    time: int
    open: float
    high: float
    low: float
    close: float
    volume: float


@dataclass
class Market:
    """Bars of one instrument `base`/`quote`.

    Args:
        gaps: spans of Unix seconds [start, end) in which nothing traded.
        trades: says whether a bar that opens at that Unix second exists.
    """

    base: str
    quote: str
    digits: int = 2
    gaps: list[tuple[int, int]] = field(default_factory=list)
    trades: Callable[[int], bool] = lambda _: True

    def bars(self, first: int, end: int, step: int) -> Iterator[Bar]:
        """Yield the bars that open in [first, end), aligned to `step` seconds."""
        opens = np.arange(-(-first // step) * step, max(first, end), step, dtype=np.int64)
        return (bar for bar in self._bars(opens, step) if self._traded(bar.time))

    def bar(self, opens: int, step: int) -> Bar:
        """Return the bar of `step` seconds that opens at an instant, aligned or not, traded or not."""
        return next(self._bars(np.array([opens], np.int64), step))

    def _bars(self, opens: Instants, step: int) -> Iterator[Bar]:
        price, last = self._prices(opens), self._prices(opens + step)
        wiggle = _noise(self.base, opens) * 0.0004
        columns: tuple[npt.NDArray[Any], ...] = (
            opens,
            price,
            np.round(np.maximum(price, last) * (1 + wiggle), self.digits),
            np.round(np.minimum(price, last) * (1 - wiggle), self.digits),
            last,
            np.round(step * (0.05 + _noise(self.quote, opens)), 4),
        )
        return map(Bar._make, zip(*(column.tolist() for column in columns), strict=True))

    def _traded(self, opens: int) -> bool:
        return self.trades(opens) and not any(start <= opens < end for start, end in self.gaps)

    def _prices(self, at: Instants) -> Numbers:
        level = _LEVELS.get(self.base, 1.0 + crc32(self.base.encode()) % 200) / _QUOTES.get(self.quote, 1.0)
        days = at / 86_400
        swing = 1 + 0.08 * np.sin(days / 9) + 0.02 * np.sin(days * 2.1) + 0.004 * np.sin(days * 37)
        return np.round(level * swing * (1 + 0.001 * _noise(self.base, at)), self.digits)


def _noise(name: str, at: Instants) -> Numbers:
    """Return a fixed number in [0, 1) for a name and each instant."""
    mixed = (at * 40_503 + crc32(name.encode())) & 0xFFFFFFFF
    mixed = ((mixed ^ (mixed >> 15)) * 2_246_822_519) & 0xFFFFFFFF
    return mixed / 2**32


def weekday(opens: int) -> bool:
    """Say whether forex trades: from Sunday 22:00 to Friday 22:00 UTC."""
    moment = datetime.fromtimestamp(opens, UTC)
    day, hour = moment.weekday(), moment.hour
    closed = (day == 4 and hour >= 22) or day == 5 or (day == 6 and hour < 22)
    return not closed
