"""A job: one series over one range, aligned to bars and clipped to what has closed and what was listed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta

from pipelines.batch.coverage import Series
from pipelines.errors import InvalidRangeError
from pipelines.instruments import AssetClass, Instrument, load_registry
from pipelines.intervals import Interval, IntervalSet
from pipelines.sources.base import MARKET_DATA, Window
from pipelines.timeframes import Timeframe, parse_instant


@dataclass(frozen=True, slots=True)
class Job:
    """What to ingest. `provider` pins one source; without it the chain is asked in order.

    `holes`, within the interval, are all that is wanted of it: the rest is asked for only where that spares a request,
    and does not land.
    """

    dataset: str
    subject: str
    interval: Interval
    instrument: Instrument | None = None
    timeframe: Timeframe | None = None
    provider: str | None = None
    force: bool = False
    holes: IntervalSet | None = None

    @property
    def label(self) -> str:
        """A short name for people."""
        return f"{self.subject} {self.timeframe.value}" if self.timeframe else f"{self.dataset} {self.subject}"

    @property
    def series(self) -> Series:
        """The job's key in the coverage log."""
        return self.series_of(self.timeframe)

    def series_of(self, timeframe: Timeframe | None) -> Series:
        """Return the key of the same subject in another timeframe."""
        return self.dataset, self.subject, timeframe.value if timeframe else None

    def window(self, interval: Interval) -> Window:
        """Return a part of the job as a window a source can cut up."""
        return Window(self.dataset, self.subject, interval.start, interval.end, self.instrument, self.timeframe)

    def needed(self, covered: IntervalSet, lookback_bars: int = 0) -> IntervalSet:
        """Return what must be fetched: what is not covered, and the last bars before that edge to look at again."""
        whole = IntervalSet([self.interval])
        if self.holes is not None:
            return self.holes
        if self.force:
            return whole
        known = whole & covered
        if lookback_bars and self.timeframe and known:
            edge = max(part.end for part in known)
            known = known - IntervalSet([Interval(edge - lookback_bars * self.timeframe.step, edge)])
        return whole - known


def horizon(instrument: Instrument | None, timeframe: Timeframe | None, now: datetime) -> datetime:
    """Return the end of what can have closed by `now`.

    Exchange sessions open off the hour, so that a bar which opened before the last full hour may still be open.
    """
    if timeframe is None:
        return now
    offset = instrument is not None and instrument.asset_class in (AssetClass.EQUITY, AssetClass.BOND)
    return timeframe.floor(now - timeframe.step if offset else now)


def bar_job(
    asset_pair: str,
    timeframe: Timeframe | str,
    start: str | date | datetime,
    end: str | date | datetime,
    *,
    now: datetime,
    provider: str | None = None,
    force: bool = False,
) -> Job:
    """Make a job for bars whose opens lie in [start, end); a bare date is 00:00 UTC.

    Raises:
        InvalidRangeError: the timeframe is unknown, or the range is inverted, empty or wholly in the future.
        UnknownAssetError: the asset pair is neither registered nor a known pair.
    """
    instrument = load_registry().resolve(asset_pair)
    frame = parse_timeframe(timeframe)
    interval = _clipped(parse_instant(start), parse_instant(end), instrument, frame, now)
    return Job(MARKET_DATA, instrument.pair, interval, instrument, frame, provider, force)


def dataset_job(
    dataset: str,
    subject: str,
    start: str | date | datetime,
    end: str | date | datetime,
    *,
    now: datetime,
    provider: str | None = None,
    asset: bool = False,
    force: bool = False,
) -> Job:
    """Make a job for a dataset that is not bars; `asset` says the subject is an asset pair.

    Raises:
        InvalidRangeError: the range is inverted, empty or wholly in the future.
        UnknownAssetError: the subject should be an asset pair and is none.
    """
    instrument = load_registry().resolve(subject) if asset else None
    interval = _clipped(parse_instant(start), parse_instant(end), instrument, None, now)
    return Job(dataset, instrument.pair if instrument else subject, interval, instrument, None, provider, force)


def parse_timeframe(text: Timeframe | str) -> Timeframe:
    """Return a timeframe by its name.

    Raises:
        InvalidRangeError: there is no such timeframe.
    """
    try:
        return Timeframe(text)
    except ValueError:
        raise InvalidRangeError(f"unknown timeframe {text!r}; valid: {', '.join(Timeframe)}") from None


def trailing_days(timeframe: Timeframe, days: int, now: datetime) -> Interval:
    """Return the last `days` x 24 hours with both ends floored to the timeframe.

    Raises:
        InvalidRangeError: `days` is not positive.
    """
    if days < 1:
        raise InvalidRangeError(f"--days must be at least 1, not {days}")
    return Interval(timeframe.floor(now - timedelta(days=days)), timeframe.floor(now))


def _clipped(
    start: datetime, end: datetime, instrument: Instrument | None, timeframe: Timeframe | None, now: datetime
) -> Interval:
    if start >= end:
        raise InvalidRangeError(
            f"the range is empty or inverted: start {start.isoformat()} is not before end {end.isoformat()}"
        )
    if start >= now:
        raise InvalidRangeError(f"the range lies in the future: it starts at {start.isoformat()}")
    if timeframe is not None:
        start, end = timeframe.ceil(start), timeframe.ceil(end)
    end = min(end, horizon(instrument, timeframe, now))
    if instrument is not None and timeframe is not None:
        listed, gone = instrument.listing
        start, end = max(start, listed), min(end, gone)
    return Interval(min(start, end), end)
