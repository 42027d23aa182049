"""Landing: buffered pages become validated, committed rows, then coverage. In that order, so a kill loses nothing."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Literal

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.batch.coverage import COVERED, REJECTED, vouched
from pipelines.batch.jobs import Job
from pipelines.batch.progress import Progress
from pipelines.batch.results import FailedWindow, IngestResult
from pipelines.contracts import load_contracts
from pipelines.data_quality.dlq import DeadLetterQueue
from pipelines.edge import EdgeContext, EdgeResult, RefusedRow, validate
from pipelines.errors import LakehouseError
from pipelines.intervals import Interval, IntervalSet
from pipelines.monitoring import metrics
from pipelines.storage import AppendResult, CoverageEntry, DeltaLakeManager
from pipelines.timeframes import utc_now

if TYPE_CHECKING:
    from collections.abc import Callable

    from pipelines.config import Settings
    from pipelines.sources.base import Capabilities, Page

_COMMITS_AT_ONCE = 2


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
class _Batch:
    """All deliveries of one series and provider in one commit."""

    deliveries: list[Delivery]
    checked: EdgeResult
    refused_whole: bool = False

    @property
    def work(self) -> Work:
        return self.deliveries[0].work

    @property
    def provider(self) -> str:
        return self.deliveries[0].provider

    @property
    def covered(self) -> IntervalSet:
        return IntervalSet(delivery.page.covered for delivery in self.deliveries)


class Landing:
    """Buffers pages per table and commits them in chunks; at most a few chunks are held in memory."""

    def __init__(
        self,
        manager: DeltaLakeManager,
        settings: Settings,
        run_id: str,
        progress: Progress,
        clock: Callable[[], datetime] = utc_now,
        *,
        synthetic: bool = False,
    ) -> None:
        self._manager = manager
        self._settings = settings
        self._run_id = run_id
        self._progress = progress
        self._clock = clock
        self._synthetic = synthetic
        self._dlq = DeadLetterQueue(settings.resolve(settings.dlq.path))
        self._buffers: dict[str, list[Delivery]] = defaultdict(list)
        self._rows: dict[str, int] = defaultdict(int)
        self._locks: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._slots = asyncio.Semaphore(_COMMITS_AT_ONCE)
        self._held = self._committing = 0
        self._most_held = 2 * settings.ingest.chunk_rows
        self._room = asyncio.Event()
        self._before: asyncio.Task[None] | None = None

    def after(self, task: asyncio.Task[None]) -> None:
        """Commit nothing before a task has ended."""
        self._before = task

    async def add(self, delivery: Delivery) -> None:
        """Take a page; holds the caller back while two chunks are in memory."""
        while self._held >= self._most_held and self._committing:
            self._room.clear()
            await self._room.wait()
        table, rows = delivery.work.table, delivery.page.table.num_rows
        self._buffers[table].append(delivery)
        self._rows[table] += rows
        self._held += rows
        if self._rows[table] >= self._settings.ingest.chunk_rows:
            await self.flush(table)
        elif self._held >= self._most_held and not self._committing:
            await self.flush(max(self._rows, key=lambda name: self._rows[name]))

    async def flush(self, table: str) -> None:
        """Commit what is buffered for a table and record its coverage; failures are noted in the results."""
        deliveries, rows = self._buffers.pop(table, []), self._rows.pop(table, 0)
        if not deliveries:
            return
        self._committing += 1
        try:
            if self._before is not None:
                await asyncio.wait([self._before])
            async with self._locks[table], self._slots:
                await asyncio.to_thread(self._land, table, deliveries)
        finally:
            self._committing -= 1
            self._held -= rows
            self._room.set()

    async def flush_all(self) -> None:
        """Commit everything buffered."""
        await asyncio.gather(*(self.flush(table) for table in list(self._buffers)))

    def refuse(self, work: Work, provider: str, refused: list[RefusedRow]) -> None:
        """Write refused rows to the dead letter queue and count them."""
        self._to_dlq(work, provider, "schema_validation_failed", refused)

    def _land(self, table: str, deliveries: list[Delivery]) -> None:
        batches: list[_Batch] = []
        try:
            batches = [self._checked(group) for group in _grouped(deliveries)]
            self._commit(table, [batch for batch in batches if not batch.refused_whole])
        except (LakehouseError, OSError, pa.ArrowException) as error:
            metrics.ingestion_errors_total.labels(error_type=type(error).__name__).inc()
            for delivery in deliveries:
                failure = FailedWindow(delivery.page.covered, delivery.provider, f"not landed: {error}")
                delivery.work.result.failed.append(failure)

    def _checked(self, deliveries: list[Delivery]) -> _Batch:
        first = deliveries[0]
        job = first.work.job
        context = EdgeContext(
            contract=load_contracts()[job.dataset],
            provider=first.provider,
            now=self._clock(),
            instrument=job.instrument,
            timeframe=job.timeframe,
            price_side=first.capabilities.price_side,
            adjusted=first.capabilities.adjusted,
            derived=first.page.derived,
        )
        batch = _Batch(deliveries, _validated([delivery.page.table for delivery in deliveries], context))
        self._refuse_bad(batch)
        return batch

    def _refuse_bad(self, batch: _Batch) -> None:
        checked, result = batch.checked, batch.work.result
        suite, status = batch.work.job.dataset, "passed" if not checked.refused else "failed"
        metrics.data_quality_checks_total.labels(suite=suite, status=status).inc()
        if not checked.refused:
            return
        ratio = len(checked.refused) / checked.total
        if ratio <= self._settings.ingest.max_rejected_ratio:
            self._to_dlq(batch.work, batch.provider, "schema_validation_failed", checked.refused)
            return
        batch.refused_whole = True
        message = f"batch refused: {ratio:.1%} of {checked.total} rows failed, over the limit"
        event_time = load_contracts()[batch.work.job.dataset].event_time
        whole = [
            *checked.refused,
            *(RefusedRow(row, message, row.get(event_time or "")) for row in checked.good.to_pylist()),
        ]
        path = self._to_dlq(batch.work, batch.provider, "too_many_rejected", whole)
        # Rows without any readable time cover nothing, and are still a failure.
        for part in list(batch.covered) or [batch.work.job.interval]:
            result.failed.append(FailedWindow(part, batch.provider, f"{message}; see {path}"))

    def _to_dlq(self, work: Work, provider: str, error: str, refused: list[RefusedRow]) -> str:
        job = work.job
        context = {"dataset": job.dataset, "asset_pair": job.subject, "provider": provider}
        if job.timeframe:
            context["timeframe"] = job.timeframe.value
        path = str(self._dlq.write(error, context, refused))
        work.result.rejected += len(refused)
        work.result.dlq_files.append(path)
        metrics.ingestion_errors_total.labels(error_type="rejected_rows").inc(len(refused))
        return path

    def _commit(self, table: str, batches: list[_Batch]) -> None:
        rows = [batch.checked.good for batch in batches if batch.checked.good.num_rows]
        if rows:
            appended = self._manager.append(table, pa.concat_tables(rows), self._run_id, synthetic=self._synthetic)
            start = 0
            for batch in batches:
                self._count(batch, appended.part(start, batch.checked.good.num_rows))
                start += batch.checked.good.num_rows
            self._progress.landed(appended.rows)
        entries = [entry for batch in batches for entry in self._coverage(batch)]
        if entries:
            self._manager.coverage.record(entries, self._run_id, synthetic=self._synthetic)

    def _count(self, batch: _Batch, landed: AppendResult) -> None:
        result = batch.work.result
        result.new += landed.new
        result.restated += landed.restated
        result.repeated += landed.repeated + batch.checked.repeated
        timeframe = result.timeframe.value if result.timeframe else ""
        labels = {"asset_pair": result.subject, "timeframe": timeframe, "provider": batch.provider}
        metrics.ingestion_records_total.labels(**labels).inc(landed.rows)

    def _coverage(self, batch: _Batch) -> Iterable[CoverageEntry]:
        job, result, good = batch.work.job, batch.work.result, batch.checked.good
        step = job.timeframe.step if job.timeframe else timedelta(microseconds=1)
        event_time = load_contracts()[job.dataset].event_time or "timestamp"
        newest = pc.max(good[event_time]).as_py() if good.num_rows else None
        settled = self._clock() - timedelta(seconds=self._settings.ingest.settling_delay_seconds)
        if job.timeframe:
            settled = job.timeframe.floor(settled)
        rejected = _rejected(batch, step, event_time)
        done = vouched(batch.covered, newest + step if newest else None, settled)
        covered = done - rejected
        result.covered = result.covered | covered
        if newest and (result.watermark is None or newest > result.watermark):
            result.watermark = newest
        found: list[tuple[Literal["covered", "rejected"], IntervalSet]] = [
            (COVERED, covered),
            (REJECTED, rejected & batch.covered),
        ]
        for status, parts in found:
            for part in parts:
                yield CoverageEntry(
                    dataset=job.dataset,
                    subject=job.subject,
                    timeframe=job.timeframe.value if job.timeframe else None,
                    provider=batch.provider,
                    start=part.start,
                    end=part.end,
                    status=status,
                    rows=good.num_rows,
                )


def _grouped(deliveries: list[Delivery]) -> list[list[Delivery]]:
    groups: dict[tuple[int, str, bool], list[Delivery]] = defaultdict(list)
    for delivery in sorted(deliveries, key=lambda item: item.page.covered):
        groups[id(delivery.work), delivery.provider, delivery.page.derived].append(delivery)
    return list(groups.values())


def _validated(tables: list[pa.Table], context: EdgeContext) -> EdgeResult:
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


def _rejected(batch: _Batch, step: timedelta, event_time: str) -> IntervalSet:
    """Return the time whose rows were refused; a row without a readable time may be any of those absent."""
    known = IntervalSet(
        Interval(row.event_time, row.event_time + step) for row in batch.checked.refused if row.event_time is not None
    )
    known = known | IntervalSet(part for delivery in batch.deliveries for part in delivery.rejected)
    landed = (
        IntervalSet(Interval(when, when + step) for when in batch.checked.good[event_time].to_pylist())
        if (batch.checked.refused)
        else IntervalSet()
    )
    if any(row.event_time is None for row in batch.checked.refused):
        return (known | batch.covered) - landed
    return known - landed
