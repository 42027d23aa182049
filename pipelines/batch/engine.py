"""The backfill engine: many windows in flight, each job down its provider chain, everything landed in chunks."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from pipelines.batch.chain import ProviderChain
from pipelines.batch.coverage import CoverageMap
from pipelines.batch.deliveries import Delivery, Work, pages_of
from pipelines.batch.derived import DerivedBars
from pipelines.batch.landing import Landing
from pipelines.batch.progress import Progress
from pipelines.batch.quality import record_edge
from pipelines.batch.results import BackfillResult, FailedWindow, IngestResult
from pipelines.calendars import expected_opens
from pipelines.errors import (
    CircuitOpenError,
    LakehouseError,
    MixedOriginError,
    QuotaExhaustedError,
    SourceAuthError,
    SourceError,
    UnsupportedError,
)
from pipelines.intervals import Interval, IntervalSet
from pipelines.monitoring import metrics
from pipelines.sources.registry import Skipped
from pipelines.timeframes import utc_now

if TYPE_CHECKING:
    from pipelines.batch.jobs import Job
    from pipelines.config import Settings
    from pipelines.sources.base import Page, Source, Window
    from pipelines.storage import DeltaLakeManager

# Providers publish with a delay of up to a day.
_LATE = timedelta(days=1)
# After one of these the provider is not asked for the rest of the job.
_HOPELESS = (CircuitOpenError, QuotaExhaustedError, SourceAuthError, UnsupportedError)


class Backfill:
    """Runs jobs against one lake. Safe to kill at any instant and to run again, also at the same time as another."""

    def __init__(
        self,
        manager: DeltaLakeManager,
        settings: Settings,
        progress: Progress | None = None,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._manager = manager
        self._settings = settings
        self._progress = progress or Progress()
        self._clock = clock
        self._stopping = False
        self._requests = 0
        self._fetching: set[asyncio.Task[Page]] = set()

    def stop(self) -> None:
        """Ask the run to end: no window is waited for any longer, what has been fetched is landed."""
        self._stopping = True
        for fetch in self._fetching:
            fetch.cancel()

    async def run(self, jobs: Sequence[Job]) -> BackfillResult:
        """Fetch and land what the jobs lack.

        Raises:
            ConfigError: a job names an unknown provider.
            MixedOriginError: the jobs mix synthetic and real providers, or do not fit the lake.
        """
        started, run_id = time.monotonic(), uuid.uuid4().hex
        chain = ProviderChain(self._settings)
        try:
            synthetic = self._one_origin(jobs, chain)
            self._manager.check_origin(synthetic=synthetic)
            self._coverage = CoverageMap.from_table(self._manager.coverage.read())
            works = [self._work(job) for job in jobs]
            self._flight = asyncio.Semaphore(self._settings.ingest.windows_in_flight)
            self._landing = Landing(
                self._manager, self._settings, run_id, self._progress, self._clock, synthetic=synthetic
            )
            self._open_works = Counter(work.table for work in works)
            self._landed = {work.table: asyncio.Event() for work in works}
            async with asyncio.TaskGroup() as group:
                if any(work.result.missing for work in works):
                    # The first commit waits for it; until then there is fetching to do.
                    self._landing.after(group.create_task(asyncio.to_thread(self._warm_up)))
                for work in works:
                    group.create_task(self._run(work, chain))
        finally:
            await chain.aclose()
        results = [work.result for work in works]
        await asyncio.to_thread(record_edge, self._manager, results, run_id, synthetic=synthetic)
        return BackfillResult(run_id, results, time.monotonic() - started, self._requests, self._stopping)

    def _one_origin(self, jobs: Sequence[Job], chain: ProviderChain) -> bool:
        kinds = {chain.is_synthetic(job) for job in jobs}
        if len(kinds) > 1:
            raise MixedOriginError("one run cannot mix the synthetic sample provider with real ones; run them apart")
        return bool(kinds and kinds.pop())

    def _work(self, job: Job) -> Work:
        work = Work(job, IngestResult(job.dataset, job.subject, job.timeframe, job.interval))
        done = self._coverage.done(job.series, job.provider)
        work.result.missing = job.needed(done, self._settings.ingest.lookback_bars)
        work.result.covered = IntervalSet([job.interval]) & self._coverage.covered(job.series, job.provider)
        if work.result.covered and job.timeframe:
            work.result.watermark = max(part.end for part in work.result.covered) - job.timeframe.step
        return work

    async def _run(self, work: Work, chain: ProviderChain) -> None:
        started = time.monotonic()
        try:
            if work.result.missing:
                await self._down_the_chain(work, chain)
        finally:
            await self._table_may_be_complete(work.table)
        if work.job.timeframe and work.result.missing:
            labels = {"asset_pair": work.job.subject, "timeframe": work.job.timeframe.value}
            metrics.ingestion_duration_seconds.labels(**labels).observe(time.monotonic() - started)

    def _warm_up(self) -> None:
        """Start the writer while windows are fetched; what is wrong with it shows at the first commit."""
        with suppress(LakehouseError, OSError):
            self._manager.warm_up()

    async def _table_may_be_complete(self, table: str) -> None:
        self._open_works[table] -= 1
        if not self._open_works[table]:
            await self._landing.flush(table)
            self._landed[table].set()

    async def _down_the_chain(self, work: Work, chain: ProviderChain) -> None:
        result, needed = work.result, work.result.missing
        last: list[FailedWindow] = []
        for candidate in chain.candidates(work.job):
            if not needed or self._stopping:
                break
            if isinstance(candidate, Skipped):
                result.skipped[candidate.name] = candidate.reason
                continue
            answered, errors = await self._ask(work, candidate, needed)
            needed = needed - answered
            if errors:
                result.skipped[candidate.name] = errors[0].error
            last = [*last, *errors]
        if not self._stopping:
            result.failed.extend(self._unserved(work, needed, last))

    def _unserved(self, work: Work, needed: IntervalSet, errors: list[FailedWindow]) -> Iterator[FailedWindow]:
        """Yield what no provider served, unless nothing can be there or it may still come."""
        for part in needed:
            error = next((e for e in reversed(errors) if IntervalSet([e.interval]) & IntervalSet([part])), None)
            if error is not None:
                yield FailedWindow(part, error.provider, error.error)
            elif not self._pending(work.job, part):
                reasons = "; ".join(f"{name}: {reason}" for name, reason in work.result.skipped.items())
                yield FailedWindow(part, work.job.provider or "", f"no provider serves it ({reasons or 'none asked'})")

    def _pending(self, job: Job, part: Interval) -> bool:
        """Say whether time that nobody vouches for is just late, or closed by the trading calendar."""
        settled = self._clock() - timedelta(seconds=self._settings.ingest.settling_delay_seconds)
        if part.end > settled or (part.end == job.interval.end and part.length <= _LATE):
            return True
        if job.instrument is None or job.timeframe is None:
            return False
        return not len(expected_opens(job.instrument, job.timeframe, part.start, part.end))

    async def _ask(self, work: Work, source: Source, needed: IntervalSet) -> tuple[IntervalSet, list[FailedWindow]]:
        """Ask one provider for what is needed; returns what it answered and what it failed to."""
        if work.job.timeframe and work.job.timeframe in source.capabilities.derived:
            return await self._derive(work, source, needed)
        answered: list[Interval] = []
        errors: list[FailedWindow] = []
        spans = needed if work.job.holes is None else [work.job.interval]
        windows = [window for part in spans for window in source.windows(work.job.window(part))]
        self._progress.planned(len(windows))

        async def one(window: Window) -> None:
            if self._stopping or any(isinstance(e, _HOPELESS) for e in raised):
                return
            try:
                # Held until the page is taken, so that no more pages than this are in memory beside the buffers.
                async with self._flight:
                    page = await self._fetch(source, window)
                    if page is None:
                        return
                    self._note(work, source, page.table.num_rows)
                    for part in pages_of(page, work.job):
                        await self._landing.add(Delivery(work, source.name, source.capabilities, part))
            except SourceError as error:
                raised.append(error)
                errors.append(FailedWindow(window.interval, source.name, str(error)))
                metrics.ingestion_errors_total.labels(error_type=type(error).__name__).inc()
                self._progress.failed()
                return
            answered.append(page.covered)

        raised: list[SourceError] = []
        await _bounded((one(window) for window in windows), self._settings.ingest.windows_in_flight)
        return IntervalSet(answered), errors

    async def _fetch(self, source: Source, window: Window) -> Page | None:
        """Fetch a window; None if the run was asked to end before it came."""
        if self._stopping:
            return None
        self._requests += 1
        fetch = asyncio.create_task(source.fetch(window))
        self._fetching.add(fetch)
        try:
            await asyncio.wait([fetch])
        finally:
            self._fetching.discard(fetch)
            fetch.cancel()
        return None if fetch.cancelled() else fetch.result()

    async def _derive(self, work: Work, source: Source, needed: IntervalSet) -> tuple[IntervalSet, list[FailedWindow]]:
        derived = DerivedBars(self._manager, source, work, self._clock)
        if derived.base_table in self._landed:
            await self._landed[derived.base_table].wait()
        if self._stopping:
            return IntervalSet(), []
        outcome = await derived.build(needed, self._flight, self._fetch)
        self._progress.planned(1)
        if outcome.refused:
            self._landing.refuse(work, source, derived.base, outcome.refused)
        for delivery in outcome.deliveries:
            self._note(work, source, delivery.page.table.num_rows)
            await self._landing.add(delivery)
        return outcome.answered, outcome.errors

    def _note(self, work: Work, source: Source, rows: int) -> None:
        work.result.fetched += rows
        work.result.served[source.name] = work.result.served.get(source.name, 0) + rows
        self._progress.fetched(rows)


async def _bounded(tasks: Iterable[Coroutine[None, None, None]], limit: int) -> None:
    """Run coroutines, at most `limit` at a time, taking each from the iterable only when there is room."""
    pending: set[asyncio.Task[None]] = set()
    try:
        for task in tasks:
            if len(pending) >= limit:
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                _raise_first(done)
            pending.add(asyncio.create_task(task))
        if pending:
            done, pending = await asyncio.wait(pending)
            _raise_first(done)
    finally:
        for left in pending:
            left.cancel()


def _raise_first(done: set[asyncio.Task[None]]) -> None:
    for task in done:
        task.result()
