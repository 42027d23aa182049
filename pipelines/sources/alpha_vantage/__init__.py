"""Alpha Vantage: bars of equities, forex and crypto, and news sentiment."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from pipelines.config import AlphaVantageSettings
from pipelines.errors import UnsupportedError
from pipelines.instruments import AssetClass, Instrument
from pipelines.intervals import Interval
from pipelines.sources.alpha_vantage.bars import bars_page
from pipelines.sources.alpha_vantage.client import MISSING_KEY, AlphaVantageClient, Endpoint
from pipelines.sources.alpha_vantage.news import news_page
from pipelines.sources.bars import closed_part
from pipelines.sources.base import MARKET_DATA, Capabilities, Page, Window, empty_bars
from pipelines.sources.network import HttpSource
from pipelines.timeframes import Timeframe, utc_now

__all__ = ["AlphaVantageProvider"]

NEWS_SENTIMENT = "raw_news_sentiment"

_NEW_YORK = ZoneInfo("America/New_York")
_INTERVALS = {Timeframe.M1: "1min", Timeframe.M5: "5min", Timeframe.M15: "15min", Timeframe.H1: "60min"}
_INTRADAY = {
    AssetClass.EQUITY: Endpoint("timeseries", "TimeSeries", "get_intraday"),
    AssetClass.FOREX: Endpoint("foreignexchange", "ForeignExchange", "get_currency_exchange_intraday"),
    AssetClass.CRYPTO: Endpoint("cryptocurrencies", "CryptoCurrencies", "get_crypto_intraday"),
}
_DAILY = {
    AssetClass.EQUITY: Endpoint("timeseries", "TimeSeries", "get_daily"),
    AssetClass.FOREX: Endpoint("foreignexchange", "ForeignExchange", "get_currency_exchange_daily"),
    AssetClass.CRYPTO: Endpoint("cryptocurrencies", "CryptoCurrencies", "get_digital_currency_daily"),
}
_A_MONTH = timedelta(days=31)
_EVERYTHING = timedelta(days=36_525)


class AlphaVantageProvider(HttpSource):
    """Alpha Vantage through the `alpha_vantage` package, whose requests go through the shared HTTP client.

    Equity bars are the regular session's (`extended_hours=false`, as other providers give them), as traded
    (`adjusted=false`); intraday ones come a US/Eastern month per request. Intraday forex and crypto have no history
    parameter: one answer holds the trailing weeks, and the page covers no more than it holds. Alpha Vantage does not
    say which side its forex prices are; they are indicative quotes near the middle. A daily bar stands at 00:00 UTC of
    its date.

    Args:
        settings: pace, quota, retries, base address, key.
        clock: the current instant, aware UTC.
        api_key: wins over the settings' key.
    """

    name = "alpha_vantage"
    capabilities = Capabilities(
        datasets=frozenset({MARKET_DATA, NEWS_SENTIMENT}),
        asset_classes=frozenset(_INTRADAY),
        timeframes=frozenset({*_INTERVALS, Timeframe.D1}),
        derived={Timeframe.H4: Timeframe.H1},
    )

    def __init__(
        self,
        settings: AlphaVantageSettings | None = None,
        clock: Callable[[], datetime] = utc_now,
        *,
        api_key: str | None = None,
    ) -> None:
        settings = settings or AlphaVantageSettings()
        secret = settings.api_key.get_secret_value() if settings.api_key else None
        self._key = api_key or secret
        self._client = AlphaVantageClient(settings, self._key)
        self._http = self._client.http
        self._clock = clock

    def unavailable_reason(self) -> str | None:
        """Return that the key is missing, if it is."""
        return None if self._key else MISSING_KEY

    def span(self, window: Window) -> timedelta:
        """Return a month for news and intraday equities; other answers hold all there is."""
        return _A_MONTH if window.dataset == NEWS_SENTIMENT or _is_monthly(window) else _EVERYTHING

    def windows(self, whole: Window) -> Iterator[Window]:
        """Cut intraday equities where a month begins in US/Eastern, as the answers are; the rest by span."""
        if not _is_monthly(whole):
            yield from super().windows(whole)
            return
        start = whole.start
        while start < whole.end:
            end = min(_month_of(start).end, whole.end)
            yield replace(whole, start=start, end=end)
            start = end

    async def fetch(self, window: Window) -> Page:
        """Fetch one window of bars or news.

        Raises:
            SourceError: as `Source.fetch`; SourceAuthError also for an endpoint that the key's plan does not include.
        """
        instrument = window.instrument
        if instrument is None or not self.supports(window.dataset, instrument, window.timeframe):
            raise UnsupportedError(f"alpha_vantage does not serve {window.dataset} of {window.subject}")
        if window.dataset == NEWS_SENTIMENT:
            return await news_page(self._client, window, instrument, self._clock())
        if window.timeframe not in self.capabilities.timeframes:
            raise UnsupportedError(f"alpha_vantage has no {window.timeframe} bars of its own")
        now = self._clock()
        if not (closed := closed_part(window, window.timeframe, now)):
            return Page(empty_bars(), closed)
        month = _month_of(window.start) if _is_monthly(window) else None
        endpoint, arguments = _request(instrument, window.timeframe, month)
        answer, key = await self._client.ask(endpoint, **arguments)
        return bars_page(window, answer[key], answer.get("Meta Data"), now, month)


def _is_monthly(window: Window) -> bool:
    instrument = window.instrument
    return instrument is not None and instrument.asset_class is AssetClass.EQUITY and window.timeframe in _INTERVALS


def _month_of(instant: datetime) -> Interval:
    first = instant.astimezone(_NEW_YORK).replace(day=1, hour=0, minute=0, second=0, microsecond=0, fold=0)
    following = (first + _A_MONTH).replace(day=1)
    return Interval(first.astimezone(UTC), following.astimezone(UTC))


def _request(instrument: Instrument, timeframe: Timeframe, month: Interval | None) -> tuple[Endpoint, dict[str, str]]:
    """Return the endpoint and what the package's function for it is called with."""
    kind = instrument.asset_class
    arguments = {} if timeframe is Timeframe.D1 else {"interval": _INTERVALS[timeframe]}
    if kind is AssetClass.EQUITY:
        arguments["symbol"] = instrument.symbol("alpha_vantage")
    elif kind is AssetClass.FOREX:
        arguments |= {"from_symbol": instrument.base, "to_symbol": instrument.quote}
    else:
        arguments |= {"symbol": instrument.base, "market": instrument.quote}
    if not (kind is AssetClass.CRYPTO and timeframe is Timeframe.D1):
        arguments["outputsize"] = "full"
    if month is not None:
        name = f"{month.start.astimezone(_NEW_YORK):%Y-%m}"
        arguments |= {"month": name, "extended_hours": "false", "adjusted": "false"}
    return (_DAILY if timeframe is Timeframe.D1 else _INTRADAY)[kind], arguments
