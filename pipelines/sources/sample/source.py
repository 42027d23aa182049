"""The sample source: which maker answers which dataset, in a worker thread so that the event loop stays free."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta

import pyarrow as pa

from pipelines.config import SampleSettings
from pipelines.errors import UnsupportedError
from pipelines.instruments import AssetClass, Instrument
from pipelines.intervals import Interval
from pipelines.sources.base import MARKET_DATA, Capabilities, Page, Source, Window
from pipelines.sources.sample.bars import BarMaker
from pipelines.sources.sample.decisions import DATASET as DECISIONS
from pipelines.sources.sample.decisions import DecisionMaker
from pipelines.sources.sample.executions import DATASET as EXECUTIONS
from pipelines.sources.sample.executions import ExecutionMaker
from pipelines.sources.sample.news import DATASET as NEWS
from pipelines.sources.sample.news import NewsMaker
from pipelines.timeframes import Timeframe, utc_now

# About 50,000 minutes of work for the finer bars; never more than a few hundred days for the coarser ones.
_SPAN_DAYS = {
    Timeframe.M1: 35,
    Timeframe.M5: 140,
    Timeframe.M15: 280,
    Timeframe.H1: 560,
    Timeframe.H4: 1120,
    Timeframe.D1: 1120,
}
_EVENT_SPAN = timedelta(days=365)


class SampleSource(Source):
    """Made-up bars, news, decisions and executions: a pure function of the seed, the asset and the time.

    However a range is cut into windows, the rows are the same; and the bars of every timeframe are exactly the
    aggregation of the 1m bars. Rows exist only where the instrument's calendar is open (news: always).
    """

    name = "sample"
    capabilities = Capabilities(
        datasets=frozenset({MARKET_DATA, NEWS, DECISIONS, EXECUTIONS}),
        asset_classes=frozenset(AssetClass),
        timeframes=frozenset(Timeframe),
        synthetic=True,
    )

    def __init__(self, settings: SampleSettings | None = None, clock: Callable[[], datetime] = utc_now) -> None:
        self._settings = settings or SampleSettings()
        self._clock = clock

    def span(self, window: Window) -> timedelta:
        """Return how much time one window should cover, to keep memory small."""
        return timedelta(days=_SPAN_DAYS[window.timeframe]) if window.timeframe else _EVENT_SPAN

    async def fetch(self, window: Window) -> Page:
        """Make one window's rows: bars that have closed, events that have happened.

        Raises:
            UnsupportedError: the dataset is not one of the sample's, or the window lacks an instrument or timeframe.
            ConfigError: the instrument names an unknown calendar.
        """
        return await asyncio.to_thread(self._page, window)

    def _page(self, window: Window) -> Page:
        if window.instrument is None or window.dataset not in self.capabilities.datasets:
            raise UnsupportedError(f"sample makes no {window.dataset} for {window.subject!r}")
        now = self._clock()
        if window.dataset == MARKET_DATA:
            return self._bars(window, window.instrument, now)
        end = max(window.start, min(window.end, now))
        return Page(self._events(window.dataset, window.instrument, window.start, end), Interval(window.start, end))

    def _bars(self, window: Window, instrument: Instrument, now: datetime) -> Page:
        timeframe = window.timeframe
        if timeframe is None:
            raise UnsupportedError(f"sample needs a timeframe for {window.dataset}")
        end = max(window.start, min(window.end, timeframe.floor(now)))
        table = BarMaker(self._settings.seed, instrument).table(timeframe, window.start, end)
        return Page(table, Interval(window.start, end))

    def _events(self, dataset: str, instrument: Instrument, start: datetime, end: datetime) -> pa.Table:
        bars = BarMaker(self._settings.seed, instrument)
        if dataset == NEWS:
            return NewsMaker(self._settings.seed, instrument, bars).table(start, end)
        decisions = DecisionMaker(self._settings.seed, instrument, bars)
        if dataset == DECISIONS:
            return decisions.table(start, end)
        return ExecutionMaker(self._settings.seed, instrument, bars, decisions).table(start, end)
