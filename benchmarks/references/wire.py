"""What both references know of the exchange: its windows and its request parameters."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import NamedTuple

from benchmarks.history import END, NATIVE, PRODUCTS, start_of

MAX_CANDLES = 300


class Window(NamedTuple):
    """One request for at most 300 candles that open in [start, end)."""

    product: str
    timeframe: str
    start: datetime
    end: datetime

    @property
    def path(self) -> str:
        """The path below the base address."""
        return f"/products/{self.product}/candles"

    @property
    def params(self) -> dict[str, str]:
        """The query; both ends are inclusive there."""
        step = NATIVE[self.timeframe]
        last = self.end - timedelta(seconds=step)
        return {"granularity": str(step), "start": self.start.isoformat(), "end": last.isoformat()}


def windows(timeframe: str, days: int) -> Iterator[Window]:
    """Yield the requests for all products' history in a timeframe that the exchange has."""
    span = timedelta(seconds=NATIVE[timeframe] * MAX_CANDLES)
    for product in PRODUCTS:
        start = start_of(days)
        while start < END:
            end = min(start + span, END)
            yield Window(product, timeframe, start, end)
            start = end


def arguments() -> argparse.Namespace:
    """Parse what every reference is told."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", required=True)
    parser.add_argument("--lake", required=True)
    parser.add_argument("--days", type=int, required=True)
    return parser.parse_args()
