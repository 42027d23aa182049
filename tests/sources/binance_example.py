"""Binance spot: crypto candles of trades, public, 1000 a request."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from pipelines.config import ProviderSettings
from pipelines.errors import MalformedAnswerError, SourceError, UnsupportedError
from pipelines.instruments import AssetClass
from pipelines.sources.bars import bar_page, bar_window, closed_part
from pipelines.sources.base import MARKET_DATA, Capabilities, Page, Window
from pipelines.sources.http import HttpClient
from pipelines.sources.network import HttpSource
from pipelines.timeframes import Timeframe, utc_now

_MAX_BARS = 1000
_FIELDS = ("timestamp", "open", "high", "low", "close", "volume")


class BinanceSettings(ProviderSettings):
    """Binance spot; no key."""

    base_url: str = "https://api.binance.com"
    requests_per_minute: float = 1200.0


class BinanceSource(HttpSource):
    """Candles of `GET /api/v3/klines`, whose intervals are spelled as ours are."""

    name = "binance"
    capabilities = Capabilities(frozenset({MARKET_DATA}), frozenset({AssetClass.CRYPTO}), frozenset(Timeframe))

    def __init__(self, settings: BinanceSettings | None = None, clock: Callable[[], datetime] = utc_now) -> None:
        self._http = HttpClient(self.name, settings or BinanceSettings(), classify=_classify)
        self._clock = clock

    def span(self, window: Window) -> timedelta:
        """Return the time of 1000 bars."""
        _, timeframe = bar_window(window)
        return timeframe.step * _MAX_BARS

    async def fetch(self, window: Window) -> Page:
        """Fetch one window; raises a SourceError, MalformedAnswerError for anything but a list of candles."""
        instrument, timeframe = bar_window(window)
        covered = closed_part(window, timeframe, self._clock())
        if not covered:
            return bar_page(dict.fromkeys(_FIELDS, ()), covered)
        times = {"startTime": _ms(covered.start), "endTime": _ms(covered.end) - 1}  # both inclusive there
        query = {"symbol": instrument.symbol(self.name), "interval": timeframe.value, "limit": _MAX_BARS, **times}
        rows = await self._http.get_json("/api/v3/klines", query)
        if not isinstance(rows, list) or not all(isinstance(row, list) and len(row) >= len(_FIELDS) for row in rows):
            raise MalformedAnswerError("binance: the answer is no list of candles")
        columns = {name: [row[place] for row in rows] for place, name in enumerate(_FIELDS)}
        columns["timestamp"] = [ms // 1000 if isinstance(ms, int) else ms for ms in columns["timestamp"]]
        return bar_page(columns, covered)


def _ms(instant: datetime) -> int:
    return int(instant.timestamp() * 1000)


def _classify(_status: int, message: str) -> SourceError | None:
    """An unknown symbol is refused with status 400, like a malformed request."""
    return UnsupportedError(message) if "Invalid symbol" in message else None
