"""Coinbase Exchange: crypto candles of trades, public, 300 a request, no 4h."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from urllib.parse import quote

from pipelines.config import CoinbaseSettings
from pipelines.errors import MalformedAnswerError
from pipelines.instruments import AssetClass
from pipelines.sources.bars import bar_page, bar_window, closed_part
from pipelines.sources.base import MARKET_DATA, Capabilities, Page, Window
from pipelines.sources.http import HttpClient
from pipelines.sources.network import HttpSource
from pipelines.timeframes import Timeframe, utc_now

_MAX_CANDLES = 300
# The order Coinbase documents: low and high come before open and close.
_FIELDS = ("timestamp", "low", "high", "open", "close", "volume")


class CoinbaseSource(HttpSource):
    """Candles of `GET /products/{product}/candles`."""

    name = "coinbase"
    capabilities = Capabilities(
        datasets=frozenset({MARKET_DATA}),
        asset_classes=frozenset({AssetClass.CRYPTO}),
        timeframes=frozenset({Timeframe.M1, Timeframe.M5, Timeframe.M15, Timeframe.H1, Timeframe.D1}),
        derived={Timeframe.H4: Timeframe.H1},
    )

    def __init__(self, settings: CoinbaseSettings | None = None, clock: Callable[[], datetime] = utc_now) -> None:
        self._http = HttpClient(self.name, settings or CoinbaseSettings())
        self._clock = clock

    def span(self, window: Window) -> timedelta:
        """Return the time of 300 candles."""
        _, timeframe = bar_window(window)
        return timeframe.step * _MAX_CANDLES

    async def fetch(self, window: Window) -> Page:
        """Fetch one window of at most 300 bars in a timeframe that Coinbase serves.

        Raises:
            SourceError: as `HttpClient.get_json`; MalformedAnswerError if the answer is no list of six-value rows.
        """
        instrument, timeframe = bar_window(window)
        covered = closed_part(window, timeframe, self._clock())
        first, end = timeframe.ceil(covered.start), timeframe.ceil(covered.end)
        if first >= end:
            return bar_page(dict.fromkeys(_FIELDS, ()), covered)
        answer = await self._http.get_json(
            f"/products/{quote(instrument.symbol(self.name), safe='')}/candles",
            {
                "granularity": timeframe.seconds,
                "start": first.isoformat(),
                # Both ends are inclusive there.
                "end": (end - timeframe.step).isoformat(),
            },
        )
        return bar_page(_columns(answer), covered)


def _columns(answer: object) -> dict[str, tuple[object, ...]]:
    """Turn newest-first rows into oldest-first columns."""
    if not isinstance(answer, list):
        raise MalformedAnswerError(f"coinbase: expected a list of candles, not {type(answer).__name__}")
    if not answer:
        return dict.fromkeys(_FIELDS, ())
    width = len(_FIELDS)
    if not all(type(row) is list and len(row) == width for row in answer):
        raise MalformedAnswerError(f"coinbase: a candle is not a row of {width} values")
    return dict(zip(_FIELDS, zip(*reversed(answer), strict=True), strict=True))
