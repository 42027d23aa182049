"""Loading files: what they hold goes through the same landing as what providers answer."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.batch.deliveries import Delivery, Work
from pipelines.batch.jobs import Job
from pipelines.batch.landing import Landing
from pipelines.batch.progress import Progress
from pipelines.batch.quality import record_edge
from pipelines.batch.results import BackfillResult, IngestResult
from pipelines.contracts import Contract
from pipelines.errors import SourceError, UnknownAssetError
from pipelines.instruments import Instrument, load_registry
from pipelines.intervals import Interval
from pipelines.sources.base import Capabilities, Page
from pipelines.sources.files import FileSpec, FilesSource, read
from pipelines.sources.files.coverage import by_asset
from pipelines.timeframes import EPOCH, utc_now

if TYPE_CHECKING:
    from pipelines.config import Settings
    from pipelines.storage import DeltaLakeManager

ASSET = "asset_pair"
_NOTHING = Interval(EPOCH, EPOCH)


@dataclass(frozen=True, slots=True)
class FailedFile:
    """A file that could not be read to its end, and why; what was read before may have landed."""

    path: str
    error: str


@dataclass
class LoadResult(BackfillResult):
    """What a load did, per series; `requests` counts the files read."""

    failed_files: list[FailedFile] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether every file was read and all of it landed, but for single refused rows."""
        return super().ok and not self.failed_files

    def as_dict(self) -> dict[str, object]:
        """Return the result as plain JSON values."""
        failed = [{"path": each.path, "error": each.error} for each in self.failed_files]
        return {**super().as_dict(), "files": self.requests, "failed_files": failed}


class FileLoad:
    """Loads files into one lake; safe to kill at any instant and to run again, because known rows are not repeated.

    Args:
        manager: the lake.
        settings: for chunks, limits and the dead letter queue.
        progress: hears of every page.
        clock: the present, aware UTC.
        capabilities: of the files source; says what the prices are.
    """

    def __init__(
        self,
        manager: DeltaLakeManager,
        settings: Settings,
        progress: Progress | None = None,
        clock: Callable[[], datetime] = utc_now,
        capabilities: Capabilities = FilesSource.capabilities,
    ) -> None:
        self._manager = manager
        self._settings = settings
        self._progress = progress or Progress()
        self._clock = clock
        self._capabilities = capabilities
        self._stopping = False

    def stop(self) -> None:
        """Ask the load to end: no new page is read, what has been read is landed."""
        self._stopping = True

    async def run(self, spec: FileSpec) -> LoadResult:
        """Land what a spec names; a file that cannot be read is reported and does not hold up the others.

        Raises:
            SourceError: there is no such file, or the spec does not fit its dataset.
        """
        started, run_id = time.monotonic(), uuid.uuid4().hex
        contract, files = spec.contract(), spec.files()
        landing = Landing(self._manager, self._settings, run_id, self._progress, self._clock)
        works: dict[str, Work] = {}
        failed: list[FailedFile] = []
        done = 0
        for path in files:
            if self._stopping:
                break
            try:
                await self._file(replace(spec, path=path), contract, works, landing)
            except SourceError as error:
                failed.append(FailedFile(str(path), str(error)))
            done += 1
        await landing.flush_all()
        series = [work.result for work in works.values()]
        await asyncio.to_thread(record_edge, self._manager, series, run_id)
        return LoadResult(run_id, series, time.monotonic() - started, done, self._stopping, failed)

    async def _file(self, spec: FileSpec, contract: Contract, works: dict[str, Work], landing: Landing) -> None:
        pages = pages_by_subject(spec, contract)
        while not self._stopping:
            self._progress.planned(1)
            found = await asyncio.to_thread(next, pages, None)
            self._progress.fetched(found[1].table.num_rows if found else 0)
            if found is None:
                return
            subject, page = found
            job = job_of(spec, subject)
            work = works.setdefault(job.subject, Work(job, _nothing_yet(job)))
            _note(work.result, page, contract)
            await landing.add(Delivery(work, FilesSource.name, self._capabilities, page))


def pages_by_subject(spec: FileSpec, contract: Contract) -> Iterator[tuple[str | None, Page]]:
    """Yield a spec's pages, each with the one asset pair or series it is about; None where the rows do not say."""
    seen: set[str | None] = set()
    for page in read(spec):
        if spec.instrument is not None:
            yield spec.instrument.pair, page
        elif page.table.num_rows:
            parts = list(by_asset(page.table, subject_column(contract)))
            seen.update(name for name, _ in parts)
            for name, part in parts:
                # What a page of several series vouches for cannot be told apart.
                yield name, Page(part, page.covered if len(parts) == 1 else _NOTHING)
        elif len(seen) == 1:
            yield next(iter(seen)), page


def subject_column(contract: Contract) -> str:
    """Return the column that says what a row is about: its asset pair, else its first key that is no time."""
    names = [column.name for column in contract.columns]
    if ASSET in names:
        return ASSET
    keys = (column.name for column in contract.provided_by("source") if column.key)
    return next(name for name in keys if name != contract.event_time)


def job_of(spec: FileSpec, subject: str | None) -> Job:
    """Return the job that a subject's rows belong to; an asset nobody knows keeps its name, for the edge to refuse."""
    instrument = spec.instrument or _resolved(spec, subject)
    name = instrument.pair if instrument else (subject or "(none)")
    return Job(spec.dataset, name, _NOTHING, instrument, spec.timeframe, FilesSource.name)


def _resolved(spec: FileSpec, subject: str | None) -> Instrument | None:
    if subject is None or subject_column(spec.contract()) != ASSET:
        return None
    try:
        return load_registry().resolve(subject)
    except UnknownAssetError:
        return None


def span_of(page: Page, contract: Contract) -> tuple[datetime, datetime] | None:
    """Return the first and last event time of a page, or None where none can be read."""
    times = page.table[contract.event_time or "timestamp"] if page.table.num_rows else None
    if times is None or not pa.types.is_timestamp(times.type) or times.type.tz is None:
        return None
    edges = pc.min_max(times).as_py()
    return (edges["min"], edges["max"]) if edges["min"] is not None else None


def _nothing_yet(job: Job) -> IngestResult:
    return IngestResult(job.dataset, job.subject, job.timeframe, job.interval)


def _note(result: IngestResult, page: Page, contract: Contract) -> None:
    """Count a page, and widen the range the result is about to its rows."""
    rows = page.table.num_rows
    result.fetched += rows
    result.served[FilesSource.name] = result.served.get(FilesSource.name, 0) + rows
    found = span_of(page, contract)
    if found is None:
        return
    first, last = found
    end = last + result.timeframe.step if result.timeframe else last
    known = result.asked if result.asked.start != EPOCH else Interval(first, end)
    result.asked = Interval(min(known.start, first), max(known.end, end))
