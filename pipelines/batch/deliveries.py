"""Deliveries on their way into the lake, grouped by series and provider and validated."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.batch.coverage import COVERED
from pipelines.batch.jobs import Job
from pipelines.batch.results import IngestResult
from pipelines.contracts import load_contracts
from pipelines.edge import EdgeContext, EdgeResult, validate
from pipelines.intervals import Interval, IntervalSet
from pipelines.sources.bars import rows_inside
from pipelines.storage import CoverageEntry
from pipelines.timeframes import EPOCH, Timeframe

if TYPE_CHECKING:
    from pipelines.sources.base import Capabilities, Page


@dataclass(slots=True)
class Work:
    """A job under way and what has become of it."""

    job: Job
    result: IngestResult

    @property
    def table(self) -> str:
        """The physical table the job lands in."""
        return load_contracts()[self.job.dataset].table_for(self.job.timeframe)


@dataclass(frozen=True, slots=True)
class Delivery:
    """A page on its way into the lake; `rejected` marks time whose finer rows were refused."""

    work: Work
    provider: str
    capabilities: Capabilities
    page: Page
    rejected: IntervalSet = field(default_factory=IntervalSet)


@dataclass(slots=True)
class Batch:
    """All deliveries of one series and provider in one commit."""

    deliveries: list[Delivery]
    checked: EdgeResult
    refused_whole: bool = False

    @property
    def work(self) -> Work:
        """The job that all of it is about."""
        return self.deliveries[0].work

    @property
    def provider(self) -> str:
        """Who answered."""
        return self.deliveries[0].provider

    @property
    def facts(self) -> dict[str, object]:
        """What the edge was told of the rows."""
        first = self.deliveries[0]
        return facts(
            self.work.job,
            self.provider,
            first.capabilities,
            timeframe=self.work.job.timeframe,
            derived=first.page.derived,
        )

    @property
    def covered(self) -> IntervalSet:
        """The time that was answered for."""
        return IntervalSet(delivery.page.covered for delivery in self.deliveries)


def facts(
    job: Job, provider: str, capabilities: Capabilities, *, timeframe: Timeframe | None, derived: bool = False
) -> dict[str, object]:
    """Return the context of a dead letter file: what the edge knows of rows besides the rows, to replay them by."""
    found: dict[str, object] = {"dataset": job.dataset, "asset_pair": job.subject, "provider": provider}
    if timeframe is not None:
        found |= {
            "timeframe": timeframe.value,
            "price_side": capabilities.price_side,
            "is_adjusted": capabilities.adjusted,
            "is_derived": derived,
        }
    return found


def pages_of(page: Page, job: Job) -> list[Page]:
    """Return what of a page is wanted, a page for each hole; rows whose time cannot be read go with the first."""
    if job.holes is None:
        return [page]
    times = page.table[event_time_of(job)]
    unreadable = rows_inside(times, Interval(EPOCH, EPOCH))
    parts: list[Page] = []
    for hole in job.holes & IntervalSet([page.covered]):
        inside = rows_inside(times, hole)
        kept = pc.and_not(inside, unreadable) if parts else inside
        parts.append(replace(page, table=page.table.filter(kept), covered=hole))
    return parts


def event_time_of(job: Job) -> str:
    """Return the column that says when a row of the job's dataset happened."""
    return load_contracts()[job.dataset].event_time or "timestamp"


def newest_in(batch: Batch) -> datetime | None:
    """Return the newest event time (aware UTC) of a batch's good rows, None without any."""
    good = batch.checked.good
    found: datetime | None = pc.max(good[event_time_of(batch.work.job)]).as_py() if good.num_rows else None
    return found


def note_covered(batch: Batch, recorded: Iterable[CoverageEntry]) -> None:
    """Add to a job's result what has been recorded as covered."""
    result, newest = batch.work.result, newest_in(batch)
    parts = (Interval(entry.start, entry.end) for entry in recorded if entry.status == COVERED)
    result.covered = result.covered | IntervalSet(parts)
    if newest and (result.watermark is None or newest > result.watermark):
        result.watermark = newest


def grouped(deliveries: list[Delivery]) -> list[list[Delivery]]:
    """Return deliveries by job and provider, with built bars apart, in order of time."""
    groups: dict[tuple[int, str, bool], list[Delivery]] = defaultdict(list)
    for delivery in sorted(deliveries, key=lambda item: item.page.covered):
        groups[id(delivery.work), delivery.provider, delivery.page.derived].append(delivery)
    return list(groups.values())


def validated(tables: list[pa.Table], context: EdgeContext) -> EdgeResult:
    """Validate pages together where their loose types agree: one pass over many small pages is far cheaper."""
    alike: dict[str, list[pa.Table]] = defaultdict(list)
    for table in tables:
        alike[table.schema.to_string()].append(table)
    parts = [validate(pa.concat_tables(group), context) for group in alike.values()]
    if len(parts) == 1:
        return parts[0]
    good = pa.concat_tables([part.good for part in parts])
    # Types differ only where a value was wrong; fold repeats across the parts too.
    folded = validate(good, context)
    return EdgeResult(
        folded.good,
        [row for part in parts for row in part.refused] + folded.refused,
        sum(part.repeated for part in parts) + folded.repeated,
    )


def rejected_in(batch: Batch, step: timedelta) -> IntervalSet:
    """Return the time whose rows were refused; a row without a readable time may be any of those absent."""
    known = IntervalSet(
        Interval(row.event_time, row.event_time + step) for row in batch.checked.refused if row.event_time is not None
    )
    known = known | IntervalSet(part for delivery in batch.deliveries for part in delivery.rejected)
    landed = (
        IntervalSet(
            Interval(when, when + step) for when in batch.checked.good[event_time_of(batch.work.job)].to_pylist()
        )
        if batch.checked.refused
        else IntervalSet()
    )
    if any(row.event_time is None for row in batch.checked.refused):
        return (known | batch.covered) - landed
    return known - landed
