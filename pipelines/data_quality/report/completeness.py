"""How complete the series are over the report's span, as far as each of them reaches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from pipelines.batch.coverage import CoverageMap
from pipelines.data_quality.gaps import SeriesGaps, gaps_of
from pipelines.data_quality.presence import series_in
from pipelines.intervals import Interval, IntervalSet
from pipelines.sources.base import MARKET_DATA

if TYPE_CHECKING:
    from pipelines.storage import DeltaLakeManager
    from pipelines.timeframes import Timeframe


def completeness(
    manager: DeltaLakeManager,
    interval: Interval,
    assets: Sequence[str] | None = None,
    timeframes: Sequence[Timeframe] | None = None,
) -> Iterator[SeriesGaps]:
    """Yield each series' gaps inside a span, from where to where the series was ever asked for.

    Time before its first and after its last fetch is not missing: freshness tells the latter.

    Args:
        manager: the lake.
        interval: the span, aware UTC.
        assets: only these asset pairs.
        timeframes: only these lengths.

    Raises:
        UnknownAssetError: the lake knows nothing of one of `assets`, or a series' asset is not registered any more.
        ConfigError: an instrument names an unknown calendar.
    """
    coverage = CoverageMap.from_table(manager.coverage.read(dataset=MARKET_DATA))
    for series in series_in(manager, coverage, assets, timeframes):
        for span in IntervalSet([interval]) & _reach(coverage.done(series.key), interval):
            yield gaps_of(manager, series, coverage, interval=span)


def _reach(asked: IntervalSet, otherwise: Interval) -> IntervalSet:
    """Return the span from the first to the last instant of a set."""
    parts = list(asked)
    return IntervalSet([Interval(parts[0].start, parts[-1].end) if parts else otherwise])
