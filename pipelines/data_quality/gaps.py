"""Gaps: bars that the trading calendar expects and the lake has not, told apart by why they are not there."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pipelines.batch.coverage import CoverageMap
from pipelines.batch.jobs import horizon
from pipelines.data_quality.presence import BarSeries, Grid, Micros, grid, inside, known_span, opens_of, series_in
from pipelines.intervals import Interval
from pipelines.sources.base import MARKET_DATA
from pipelines.timeframes import EPOCH, Timeframe, from_micros, utc_now

if TYPE_CHECKING:
    from pipelines.storage import DeltaLakeManager

_DAY = 86_400_000_000
_Places = npt.NDArray[np.int64]


class GapKind(StrEnum):
    """Why there is no bar.

    NOT_FETCHED: no provider has answered for that time. NO_DATA: at least one has, and had no such bar. REJECTED: at
    least one had it, but the row was refused, and none vouches for the time. CLOSED: the calendar has no bar there.
    """

    NOT_FETCHED = "not fetched"
    NO_DATA = "provider has none"
    REJECTED = "rejected"
    CLOSED = "market closed"


# Why bars are missing, as it is shown.
MISSING = (GapKind.NOT_FETCHED, GapKind.NO_DATA, GapKind.REJECTED)
# In the order of their codes: what is known of a later one outdoes an earlier one.
_MISSING = (GapKind.NOT_FETCHED, GapKind.REJECTED, GapKind.NO_DATA)


@dataclass(frozen=True, slots=True)
class GapRun:
    """Bars missing one after another for the same reason; closed time, as a weekend, ends a run.

    Attributes:
        interval: from the open of the first to the close of the last, aware UTC.
        bars: how many are missing; of CLOSED, how many the calendar leaves out.
        kind: why.
        providers: who answered for at least one of them, sorted; none for NOT_FETCHED and CLOSED.
    """

    interval: Interval
    bars: int
    kind: GapKind
    providers: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, object]:
        """Return it as plain JSON values."""
        return {
            "start": self.interval.start.isoformat(),
            "end": self.interval.end.isoformat(),
            "bars": self.bars,
            "kind": self.kind.value,
            "providers": list(self.providers),
        }


@dataclass(frozen=True, slots=True)
class DayCount:
    """A date in UTC on which bars are expected: how many, and how many of these are there."""

    day: date
    expected: int
    present: int


@dataclass(frozen=True, slots=True)
class SeriesGaps:
    """How complete one series is.

    Attributes:
        asset_pair: the instrument.
        timeframe: the bars' length.
        interval: the span looked at, aware UTC.
        expected: bars that the calendar has in it.
        present: how many of these the lake has, of any provider.
        runs: what is missing, in order of time; with runs of closed time where they were asked for.
        closed_bars: places for a bar at which the calendar has none, and the lake neither.
        days: the dates with expected bars.
        outside: bars the lake has where the calendar has none, as from trading on a holiday.
    """

    asset_pair: str
    timeframe: Timeframe
    interval: Interval
    expected: int
    present: int
    runs: tuple[GapRun, ...]
    closed_bars: int
    days: tuple[DayCount, ...]
    outside: int = 0

    @property
    def missing(self) -> int:
        """How many expected bars are not there."""
        return self.expected - self.present

    @property
    def completeness(self) -> float:
        """The share of expected bars that are there, 0 to 1."""
        return self.present / self.expected if self.expected else 1.0

    @property
    def by_kind(self) -> Mapping[GapKind, int]:
        """How many bars are missing for each reason."""
        return {kind: sum(run.bars for run in self.runs if run.kind is kind) for kind in _MISSING}

    def as_dict(self) -> dict[str, object]:
        """Return it as plain JSON values, without its days."""
        return {
            "asset_pair": self.asset_pair,
            "timeframe": self.timeframe.value,
            "start": self.interval.start.isoformat(),
            "end": self.interval.end.isoformat(),
            "expected": self.expected,
            "present": self.present,
            "missing": self.missing,
            "by_kind": {kind.value: bars for kind, bars in self.by_kind.items()},
            "completeness": round(self.completeness, 6),
            "closed_bars": self.closed_bars,
            "outside_calendar": self.outside,
            "runs": [run.as_dict() for run in self.runs],
        }


def find_gaps(
    manager: DeltaLakeManager,
    *,
    assets: Sequence[str] | None = None,
    timeframes: Sequence[Timeframe | str] | None = None,
    interval: Interval | None = None,
    provider: str | None = None,
    closed: bool = False,
    now: datetime | None = None,
) -> list[SeriesGaps]:
    """Hold every series of bars against its trading calendar.

    Args:
        manager: the lake; one series at a time is in memory.
        assets: only these asset pairs.
        timeframes: only these lengths.
        interval: the span to look at, aware UTC; by default each series from its first to its last instant that rows or
            coverage know of. Bars younger than `ingest.settling_delay_seconds` are not missed yet.
        provider: only count rows of this one, and what it vouches for.
        closed: also tell the runs of closed time.
        now: the present, aware UTC.

    Raises:
        UnknownAssetError: the lake knows nothing of one of `assets`, or a series' asset is not registered any more.
        ConfigError: an instrument names an unknown calendar.
    """
    coverage = CoverageMap.from_table(manager.coverage.read(dataset=MARKET_DATA))
    return [
        gaps_of(manager, series, coverage, interval=interval, provider=provider, closed=closed, now=now)
        for series in series_in(manager, coverage, assets, timeframes)
    ]


def gaps_of(
    manager: DeltaLakeManager,
    series: BarSeries,
    coverage: CoverageMap,
    *,
    interval: Interval | None = None,
    provider: str | None = None,
    closed: bool = False,
    now: datetime | None = None,
) -> SeriesGaps:
    """Hold one series against its calendar and the lake's coverage; arguments and errors are those of `find_gaps`."""
    opens = opens_of(manager, series, interval, provider)
    span = interval or known_span(series, opens, coverage.done(series.key, provider))
    settled = (now or utc_now()) - timedelta(seconds=manager.settings.ingest.settling_delay_seconds)
    end = min(span.end, horizon(series.instrument, series.timeframe, settled))
    span = Interval(min(span.start, end), end)
    laid = grid(series, span, opens)
    runs = list(_missing_runs(series, laid, coverage, provider))
    if closed:
        runs = list(heapq.merge(runs, _closed_runs(series, laid), key=lambda run: run.interval))
    return SeriesGaps(
        asset_pair=series.asset_pair,
        timeframe=series.timeframe,
        interval=span,
        expected=int(np.count_nonzero(laid.expected)),
        present=int(np.count_nonzero(laid.expected & laid.present)),
        runs=tuple(runs),
        closed_bars=int(np.count_nonzero(~laid.expected & ~laid.present)),
        days=_days(laid),
        outside=int(np.count_nonzero(~laid.expected & laid.present)),
    )


def _missing_runs(series: BarSeries, laid: Grid, coverage: CoverageMap, provider: str | None) -> list[GapRun]:
    missing = laid.missing
    opens = laid.opens[missing]
    if not opens.size:
        return []
    names = sorted(coverage.providers(series.key) if provider is None else {provider})
    answered = {name: _answers(series, coverage, name, opens) for name in names}
    codes = np.zeros(opens.size, dtype=np.int8)
    for found in answered.values():
        codes = np.maximum(codes, found)
    firsts = _firsts((np.diff(np.flatnonzero(missing)) != 1) | (np.diff(codes) != 0))
    who = {name: np.logical_or.reduceat((found == codes) & (found > 0), firsts) for name, found in answered.items()}
    return [
        GapRun(span, bars, _MISSING[codes[first]], tuple(name for name in names if who[name][place]))
        for place, (first, (span, bars)) in enumerate(zip(firsts, _spans(series, opens, firsts), strict=True))
    ]


def _answers(series: BarSeries, coverage: CoverageMap, provider: str, opens: Micros) -> npt.NDArray[np.int8]:
    """Return the code of what one provider says of each missing bar."""
    refused = inside(opens, coverage.rejected(series.key, provider))
    vouched = inside(opens, coverage.covered(series.key, provider))
    codes = np.where(vouched, _MISSING.index(GapKind.NO_DATA), np.where(refused, _MISSING.index(GapKind.REJECTED), 0))
    return codes.astype(np.int8)


def _closed_runs(series: BarSeries, laid: Grid) -> list[GapRun]:
    shut = ~laid.expected & ~laid.present
    opens = laid.opens[shut]
    if not opens.size:
        return []
    firsts = _firsts(np.diff(np.flatnonzero(shut)) != 1)
    return [GapRun(span, bars, GapKind.CLOSED) for span, bars in _spans(series, opens, firsts)]


def _firsts(breaks: npt.NDArray[np.bool_]) -> _Places:
    """Return the places at which runs begin, given between which neighbours one ends."""
    return np.concatenate([[0], np.flatnonzero(breaks) + 1])


def _spans(series: BarSeries, opens: Micros, firsts: _Places) -> list[tuple[Interval, int]]:
    """Return the span of each run and how many bars it has."""
    ends = np.append(firsts[1:], opens.size)
    step = series.timeframe.step
    return [
        (Interval(from_micros(int(opens[first])), from_micros(int(opens[end - 1])) + step), int(end - first))
        for first, end in zip(firsts, ends, strict=True)
    ]


def _days(laid: Grid) -> tuple[DayCount, ...]:
    if not laid.opens.size:
        return ()
    numbers = laid.opens // _DAY
    first = int(numbers[0])
    expected, present = (
        np.bincount(numbers[marked] - first, minlength=int(numbers[-1]) - first + 1)
        for marked in (laid.expected, laid.expected & laid.present)
    )
    return tuple(
        DayCount((EPOCH + timedelta(days=first + int(day))).date(), int(expected[day]), int(present[day]))
        for day in np.flatnonzero(expected)
    )
