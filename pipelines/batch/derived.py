"""Building a derived timeframe: finer bars from the lake where it has them, from the provider where it has not."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import polars as pl
import pyarrow as pa

from pipelines.batch.aggregation import aggregate, whole_bars
from pipelines.batch.coverage import CoverageMap
from pipelines.batch.deliveries import Delivery, Work
from pipelines.batch.results import FailedWindow
from pipelines.contracts import load_contracts
from pipelines.edge import EdgeContext, RefusedRow, validate
from pipelines.errors import SourceError, UnsupportedError
from pipelines.intervals import Interval, IntervalSet
from pipelines.sources.base import Page, Window

if TYPE_CHECKING:
    from pipelines.sources.base import Source
    from pipelines.storage import DeltaLakeManager

Fetch = Callable[["Source", Window], Awaitable[Page | None]]
_BAR = ["timestamp", "open", "high", "low", "close", "volume"]


@dataclass(slots=True)
class Derivation:
    """What came of deriving: pages to land, refused finer rows, what is answered, what failed."""

    deliveries: list[Delivery] = field(default_factory=list)
    refused: list[RefusedRow] = field(default_factory=list)
    errors: list[FailedWindow] = field(default_factory=list)
    answered: IntervalSet = field(default_factory=IntervalSet)


class DerivedBars:
    """Derives one job's bars from its provider's next finer timeframe."""

    def __init__(
        self,
        manager: DeltaLakeManager,
        source: Source,
        work: Work,
        clock: Callable[[], datetime],
    ) -> None:
        if work.job.timeframe is None:
            raise UnsupportedError(f"{work.job.dataset} has no timeframe to derive")
        self._manager = manager
        self._source = source
        self._work = work
        self._clock = clock
        self._timeframe = work.job.timeframe
        self.base = source.capabilities.derived[self._timeframe]
        self._contract = load_contracts()[work.job.dataset]
        self.base_table = self._contract.table_for(self.base)

    async def build(self, needed: IntervalSet, flight: asyncio.Semaphore, fetch: Fetch) -> Derivation:
        """Derive what is needed.

        Args:
            needed: the wanted time, aligned to the derived timeframe.
            flight: the run's limit of windows under way.
            fetch: fetches one window from a source; None means that the run is ending.
        """
        outcome = Derivation()
        held, rejected = await asyncio.to_thread(self._held)
        pages = await self._fetch(needed - held - rejected, flight, fetch, outcome)
        tables = [await asyncio.to_thread(self._from_lake, part) for part in needed & held]
        tables += [self._checked(page, outcome) for page in pages]
        rejected = rejected | IntervalSet(
            Interval(row.event_time, row.event_time + self.base.step) for row in outcome.refused if row.event_time
        )
        known = (needed & held) | IntervalSet(page.covered for page in pages) | (needed & rejected)
        whole = whole_bars(known, self._timeframe) & needed
        spoiled = _widened(rejected, self._timeframe.step, self._timeframe.floor) & whole
        outcome.answered = whole
        self._deliver(pa.concat_tables(tables) if tables else None, whole, spoiled, outcome)
        return outcome

    def _held(self) -> tuple[IntervalSet, IntervalSet]:
        job = self._work.job
        log = self._manager.coverage.read(dataset=job.dataset, subject=job.subject, timeframe=self.base.value)
        coverage, series = CoverageMap.from_table(log), job.series_of(self.base)
        return coverage.covered(series, self._source.name), coverage.rejected(series, self._source.name)

    async def _fetch(
        self, lacking: IntervalSet, flight: asyncio.Semaphore, fetch: Fetch, outcome: Derivation
    ) -> list[Page]:
        pages: list[Page] = []
        job = self._work.job
        for part in lacking:
            whole = Window(job.dataset, job.subject, part.start, part.end, job.instrument, self.base)
            for window in self._source.windows(whole):
                try:
                    async with flight:
                        page = await fetch(self._source, window)
                except SourceError as error:
                    outcome.errors.append(FailedWindow(window.interval, self._source.name, str(error)))
                    return pages
                if page is None:
                    return pages
                pages.append(page)
        return pages

    def _from_lake(self, part: Interval) -> pa.Table:
        """Return the newest version of this provider's finer bars."""
        table = self._manager.read_arrow(
            self.base_table,
            start=part.start,
            end=part.end,
            assets=[self._work.job.subject],
            columns=[*_BAR, "provider", "ingested_at"],
        )
        frame = pl.from_arrow(table)
        if not isinstance(frame, pl.DataFrame):
            raise TypeError("expected a table of bars")
        newest = (
            frame.filter(pl.col("provider") == self._source.name)
            .sort("timestamp", "ingested_at")
            .unique("timestamp", keep="last", maintain_order=True)
        )
        return newest.select(_BAR).to_arrow().cast(self._bar_schema())

    def _checked(self, page: Page, outcome: Derivation) -> pa.Table:
        job = self._work.job
        context = EdgeContext(
            self._contract, self._source.name, self._clock(), instrument=job.instrument, timeframe=self.base
        )
        checked = validate(page.table, context)
        outcome.refused.extend(checked.refused)
        return checked.good.select(_BAR).cast(self._bar_schema())

    def _bar_schema(self) -> pa.Schema:
        return pa.schema([(name, self._contract.column(name).arrow_type) for name in _BAR])

    def _deliver(self, base: pa.Table | None, whole: IntervalSet, spoiled: IntervalSet, outcome: Derivation) -> None:
        table = aggregate(base if base is not None else self._bar_schema().empty_table(), self._timeframe)
        opens = table["timestamp"].to_pylist()
        for part in whole:
            inside = pa.array([when in part and when not in spoiled for when in opens], pa.bool_())
            page = Page(table.filter(inside), part, derived=True)
            rejected = spoiled & IntervalSet([part])
            outcome.deliveries.append(
                Delivery(self._work, self._source.name, self._source.capabilities, page, rejected)
            )


def _widened(parts: IntervalSet, step: timedelta, floor: Callable[[datetime], datetime]) -> IntervalSet:
    """Return the derived bars that hold any of `parts`."""
    bars = []
    for part in parts:
        start = floor(part.start)
        while start < part.end:
            bars.append(Interval(start, start + step))
            start += step
    return IntervalSet(bars)
