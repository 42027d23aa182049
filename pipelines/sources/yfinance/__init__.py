"""Yahoo Finance bars through the yfinance package: equities, yields, crypto and forex, without a key."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, cast

import pyarrow as pa

from pipelines.config import YfinanceSettings
from pipelines.errors import UnsupportedError
from pipelines.instruments import AssetClass
from pipelines.intervals import Interval
from pipelines.sources.bars import bar_page, bar_window, closed_part
from pipelines.sources.base import MARKET_DATA, Capabilities, Page, Window, empty_bars
from pipelines.sources.http import HttpClient
from pipelines.sources.network import HttpSource
from pipelines.sources.yfinance.chart import Chart, NoBars, classify
from pipelines.timeframes import Timeframe, utc_now

if TYPE_CHECKING:
    import pandas as pd

_DAY = timedelta(days=1)
# What Yahoo accepts, a day short of what it advertises (30, 60, 60 and 730 days): its limits are counted to the second.
_DEPTH = {
    Timeframe.M1: 29 * _DAY,
    Timeframe.M5: 59 * _DAY,
    Timeframe.M15: 59 * _DAY,
    Timeframe.H1: 729 * _DAY,
}
_SPAN = {**_DEPTH, Timeframe.M1: 7 * _DAY, Timeframe.D1: timedelta(days=36_525)}
_COLUMNS = {"open": "Open", "high": "High", "low": "Low", "close": "Close", "volume": "Volume"}
_WITHOUT_VOLUME = frozenset({AssetClass.FOREX, AssetClass.BOND})


class YfinanceSource(HttpSource):
    """Bars of Yahoo's chart API, which the yfinance package asks for and reads.

    Prices are asked for with `auto_adjust=False`: without dividends, but Yahoo has always divided older prices (and
    multiplied volumes) by later splits, so a bar from before a split is not what was traded then. Equities are the
    regular session's, so their 1h bars open on the half hour. Forex is Yahoo's indicative quote; it has no volume. A
    daily bar stands at 00:00 UTC of the exchange's date. Intraday history is short (1m 30 days, 5m and 15m 60, 1h 730);
    a page covers nothing older.
    """

    name = "yfinance"
    capabilities = Capabilities(
        datasets=frozenset({MARKET_DATA}),
        asset_classes=frozenset(AssetClass),
        timeframes=frozenset(_SPAN),
        derived={Timeframe.H4: Timeframe.H1},  # Yahoo's own 4h bars begin with the session, not on the clock
    )

    def __init__(self, settings: YfinanceSettings | None = None, clock: Callable[[], datetime] = utc_now) -> None:
        settings = settings or YfinanceSettings()
        self._http = HttpClient(self.name, settings)
        self._chart = Chart(settings)
        self._clock = clock

    def span(self, window: Window) -> timedelta:
        """Return what Yahoo gives in one answer: 7 days of 1m bars, else all there is."""
        _, timeframe = bar_window(window)
        if timeframe not in _SPAN:
            raise UnsupportedError(f"yfinance has no {timeframe} bars of its own")
        return _SPAN[timeframe]

    def windows(self, whole: Window) -> Iterator[Window]:
        """Cut by span; what is older than Yahoo keeps is one window, which costs no request."""
        oldest = self.oldest(whole)
        if whole.start < (end := min(oldest, whole.end)):
            yield replace(whole, end=end)
        if oldest < whole.end:
            yield from super().windows(replace(whole, start=max(oldest, whole.start)))

    async def fetch(self, window: Window) -> Page:
        """Fetch one window of closed bars.

        Raises:
            SourceError: as `HttpClient.call_vendor`; never an empty page instead.
        """
        instrument, timeframe = bar_window(window)
        self.span(window)
        now = self._clock()
        wanted = closed_part(window, timeframe, now)
        start = max(wanted.start, self.oldest(window))
        if start >= wanted.end:
            return Page(empty_bars(), Interval(wanted.start, wanted.start))
        asked = Interval(start, wanted.end)
        symbol = instrument.symbol(self.name)
        # Before the first try: the import takes seconds, for which its time limit should not have to allow.
        await self._http.in_thread(self._chart.open)
        # A daily bar is stamped with its session's open, which may lie outside its UTC date.
        margin = _DAY if timeframe is Timeframe.D1 else timedelta()
        wide = Interval(asked.start - margin, asked.end + margin)
        answer = await self._http.call_vendor(lambda: self._chart.history(symbol, timeframe, wide), classify)
        if isinstance(answer, NoBars):
            return Page(empty_bars(), asked if answer.vouched else Interval(start, start))
        return _page(answer, timeframe, asked, now, has_volume=instrument.asset_class not in _WITHOUT_VOLUME)

    async def aclose(self) -> None:
        """Release connections and threads."""
        await super().aclose()
        self._chart.close()

    def oldest(self, window: Window) -> datetime:
        """Return the first instant that Yahoo keeps; the year 1 where it keeps everything."""
        _, timeframe = bar_window(window)
        if timeframe not in _DEPTH:
            return datetime.min.replace(tzinfo=UTC)
        return timeframe.ceil(self._clock() - _DEPTH[timeframe])


def _page(frame: pd.DataFrame, timeframe: Timeframe, asked: Interval, now: datetime, *, has_volume: bool) -> Page:
    index = cast("pd.DatetimeIndex", frame.index)
    # The date is the exchange's own; instants are UTC.
    utc = (
        index.tz_localize(None).normalize().tz_localize("UTC") if timeframe is Timeframe.D1 else index.tz_convert("UTC")
    )
    opens = [int(stamp) for stamp in utc.as_unit("s").asi8]
    # A bar off the hour that is still open: the page must not vouch for it.
    still_open = [
        datetime.fromtimestamp(opened, UTC) for opened in opens[-3:] if opened + timeframe.seconds > now.timestamp()
    ]
    covered = Interval(asked.start, max(asked.start, min([asked.end, *still_open])))
    columns = {name: pa.array(frame[column]).to_pylist() for name, column in _COLUMNS.items()}
    if not has_volume:
        columns["volume"] = [None] * len(opens)
    return bar_page({"timestamp": opens, **columns}, covered)
