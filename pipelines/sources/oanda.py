"""OANDA v20: forex candles of mid, bid or ask prices, 5000 a request, with a personal token."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from urllib.parse import quote

from pipelines.config import OandaSettings
from pipelines.errors import MalformedAnswerError, SourceError, UnsupportedError
from pipelines.instruments import AssetClass
from pipelines.sources.bars import bar_page, bar_window, closed_part
from pipelines.sources.base import MARKET_DATA, Capabilities, Page, Window
from pipelines.sources.http import HttpClient
from pipelines.sources.network import HttpSource
from pipelines.timeframes import Timeframe, utc_now

# One below the documented 5000, in case the candle at `to` is counted.
_MAX_CANDLES = 4999
_GRANULARITY = {
    Timeframe.M1: "M1",
    Timeframe.M5: "M5",
    Timeframe.M15: "M15",
    Timeframe.H1: "H1",
    Timeframe.H4: "H4",
    Timeframe.D1: "D",
}
_PRICES = {"open": "o", "high": "h", "low": "l", "close": "c"}
_BAD_REQUEST = 400


class OandaSource(HttpSource):
    """Candles of `GET /v3/instruments/{instrument}/candles`; volume is the number of price updates."""

    name = "oanda"
    capabilities = Capabilities(
        datasets=frozenset({MARKET_DATA}),
        asset_classes=frozenset({AssetClass.FOREX}),
        timeframes=frozenset(_GRANULARITY),
        price_side="mid",
    )

    def __init__(self, settings: OandaSettings | None = None, clock: Callable[[], datetime] = utc_now) -> None:
        settings = settings or OandaSettings()
        token = settings.api_token.get_secret_value() if settings.api_token else None
        self._has_token = token is not None
        self._side = settings.price_side
        self.capabilities = replace(type(self).capabilities, price_side=self._side)
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._http = HttpClient(self.name, settings, headers, classify=_classify)
        self._clock = clock

    def unavailable_reason(self) -> str | None:
        """Say so if there is no token."""
        return None if self._has_token else "no token; set OANDA_API_TOKEN or providers.oanda.api_token"

    def span(self, window: Window) -> timedelta:
        """Return the time of 4999 candles."""
        _, timeframe = bar_window(window)
        return timeframe.step * _MAX_CANDLES

    async def fetch(self, window: Window) -> Page:
        """Fetch one window of bars aligned to UTC; incomplete ones are left out.

        Raises:
            SourceError: as `HttpClient.get_json`; MalformedAnswerError if the answer lacks the documented keys.
        """
        instrument, timeframe = bar_window(window)
        covered = closed_part(window, timeframe, self._clock())
        if not covered:
            return bar_page(_columns([], self._side), covered)
        answer = await self._http.get_json(
            f"/v3/instruments/{quote(instrument.symbol(self.name), safe='')}/candles",
            {
                "granularity": _GRANULARITY[timeframe],
                "price": self._side[0].upper(),
                "from": covered.start.isoformat(),
                "to": covered.end.isoformat(),
                # Without these, days begin at 17:00 New York and 4h bars with them.
                "dailyAlignment": 0,
                "alignmentTimezone": "UTC",
            },
        )
        candles = answer.get("candles") if isinstance(answer, dict) else None
        if not isinstance(candles, list):
            raise MalformedAnswerError("oanda: the answer has no list of candles")
        return bar_page(_columns(candles, self._side), covered)


def _columns(candles: list[dict[str, object]], side: str) -> dict[str, list[object]]:
    try:
        done = [candle for candle in candles if candle["complete"] is not False]
        prices: list[dict[str, object]] = [candle[side] for candle in done]  # type: ignore[misc]
        columns = {name: [price[key] for price in prices] for name, key in _PRICES.items()}
        times, volumes = [candle["time"] for candle in done], [candle["volume"] for candle in done]
    except (KeyError, TypeError) as error:
        raise MalformedAnswerError(f"oanda: a candle lacks a documented key ({error})") from None
    return {"timestamp": times, **columns, "volume": volumes}


def _classify(status: int, message: str) -> SourceError | None:
    """An unknown instrument is refused like a malformed request, with status 400."""
    if status == _BAD_REQUEST and "instrument" in message.rpartition("answered 400")[2].lower():
        return UnsupportedError(message)
    return None
