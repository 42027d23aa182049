"""Landing: buffered pages become validated, committed rows, then coverage. In that order, so a kill loses nothing."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Literal

import pyarrow as pa

from pipelines.batch.coverage import COVERED, REJECTED, vouched
from pipelines.batch.deliveries import (
    Batch,
    Delivery,
    Work,
    facts,
    grouped,
    newest_in,
    note_covered,
    rejected_in,
    validated,
)
from pipelines.batch.progress import Progress
from pipelines.batch.results import FailedWindow
from pipelines.contracts import load_contracts
from pipelines.data_quality.dlq import DeadLetterQueue
from pipelines.data_quality.reasons import WHOLE_BATCH, kinds_of
from pipelines.edge import EdgeContext, RefusedRow
from pipelines.errors import ConcurrentWriteError, LakehouseError
from pipelines.intervals import Interval, IntervalSet
from pipelines.monitoring import metrics
from pipelines.storage import AppendResult, CoverageEntry, DeltaLakeManager
from pipelines.timeframes import Timeframe, utc_now

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pipelines.config import Settings
    from pipelines.sources.base import Source

_COMMITS_AT_ONCE = 2


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

    def refuse(self, work: Work, source: Source, timeframe: Timeframe, refused: list[RefusedRow]) -> None:
        """Write refused finer bars, which the job's own are built from, to the dead letter queue and count them."""
        told = facts(work.job, source.name, source.capabilities, timeframe=timeframe)
        self._to_dlq(work, told, "schema_validation_failed", refused)

    def _land(self, table: str, deliveries: list[Delivery]) -> None:
        batches: list[Batch] = []
        try:
            batches = [self._checked(group) for group in grouped(deliveries)]
            self._commit(table, [batch for batch in batches if not batch.refused_whole])
        except (LakehouseError, OSError, pa.ArrowException) as error:
            metrics.ingestion_errors_total.labels(error_type=type(error).__name__).inc()
            for delivery in deliveries:
                failure = FailedWindow(delivery.page.covered, delivery.provider, f"not landed: {error}")
                delivery.work.result.failed.append(failure)

    def _checked(self, deliveries: list[Delivery]) -> Batch:
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
        batch = Batch(deliveries, validated([delivery.page.table for delivery in deliveries], context))
        self._refuse_bad(batch)
        return batch

    def _refuse_bad(self, batch: Batch) -> None:
        checked, result = batch.checked, batch.work.result
        suite, status = batch.work.job.dataset, "passed" if not checked.refused else "failed"
        metrics.data_quality_checks_total.labels(suite=suite, status=status).inc()
        if not checked.refused:
            return
        ratio = len(checked.refused) / checked.total
        if ratio <= self._settings.ingest.max_rejected_ratio:
            self._to_dlq(batch.work, batch.facts, "schema_validation_failed", checked.refused)
            return
        batch.refused_whole = True
        result.repeated += checked.repeated
        message = f"{WHOLE_BATCH}: {ratio:.1%} of {checked.total} rows failed, over the limit"
        event_time = load_contracts()[batch.work.job.dataset].event_time
        whole = [
            *checked.refused,
            *(RefusedRow(row, message, row.get(event_time or "")) for row in checked.good.to_pylist()),
        ]
        path = self._to_dlq(batch.work, batch.facts, "too_many_rejected", whole)
        reason = checked.refused[0].reason
        # Rows without any readable time cover nothing, and are still a failure.
        for part in list(batch.covered) or [batch.work.job.interval]:
            result.failed.append(FailedWindow(part, batch.provider, f"{message} ({reason}); see {path}"))

    def _to_dlq(self, work: Work, context: Mapping[str, object], error: str, refused: list[RefusedRow]) -> str:
        path = str(self._dlq.write(error, context, refused))
        work.result.rejected += len(refused)
        work.result.reasons.update(kind for row in refused for kind in kinds_of(row.reason))
        work.result.dlq_files.append(path)
        metrics.ingestion_errors_total.labels(error_type="rejected_rows").inc(len(refused))
        return path

    def _commit(self, table: str, batches: list[Batch]) -> None:
        rows = [batch.checked.good for batch in batches if batch.checked.good.num_rows]
        appended: AppendResult | None = None
        if rows:
            appended = self._manager.append(table, pa.concat_tables(rows), self._run_id, synthetic=self._synthetic)
            start = 0
            for batch in batches:
                self._count(batch, appended.part(start, batch.checked.good.num_rows))
                start += batch.checked.good.num_rows
            self._progress.landed(appended.rows)
        claims = [list(self._coverage(batch)) for batch in batches]
        entries = [entry for found in claims for entry in found]
        if entries:
            self._manager.coverage.record(entries, self._run_id, synthetic=self._synthetic)
            if appended is not None and self._manager.undone_since(table, appended.version):
                self._take_back(table, entries)
        for batch, found in zip(batches, claims, strict=True):
            note_covered(batch, found)

    def _take_back(self, table: str, entries: Sequence[CoverageEntry]) -> None:
        """Claim none of it: rows may be gone that were there when they were appended, and those left are repeats."""
        spans: dict[str, IntervalSet] = {}
        for entry in entries:
            spans[entry.subject] = spans.get(entry.subject, IntervalSet()) | IntervalSet(
                [Interval(entry.start, entry.end)]
            )
        dataset, timeframe = entries[0].dataset, entries[0].timeframe
        frame = Timeframe(timeframe) if timeframe else None
        self._manager.coverage.retract(dataset, frame, spans, self._run_id)
        raise ConcurrentWriteError(f"{table} was restored or repaired while it was appended to; run it again")

    def _count(self, batch: Batch, landed: AppendResult) -> None:
        result = batch.work.result
        result.new += landed.new
        result.restated += landed.restated
        result.repeated += landed.repeated + batch.checked.repeated
        timeframe = result.timeframe.value if result.timeframe else ""
        labels = {"asset_pair": result.subject, "timeframe": timeframe, "provider": batch.provider}
        metrics.ingestion_records_total.labels(**labels).inc(landed.rows)

    def _coverage(self, batch: Batch) -> Iterable[CoverageEntry]:
        job, good = batch.work.job, batch.checked.good
        step = job.timeframe.step if job.timeframe else timedelta(microseconds=1)
        newest = newest_in(batch)
        settled = self._clock() - timedelta(seconds=self._settings.ingest.settling_delay_seconds)
        if job.timeframe:
            settled = job.timeframe.floor(settled)
        rejected = rejected_in(batch, step)
        done = vouched(batch.covered, newest + step if newest else None, settled)
        found: list[tuple[Literal["covered", "rejected"], IntervalSet]] = [
            (COVERED, done - rejected),
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
