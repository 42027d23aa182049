"""The log of what has been asked for and answered: small appends by delta-rs, no JVM, safe between processes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.contracts import contract_for
from pipelines.errors import ConcurrentWriteError
from pipelines.intervals import Interval, IntervalSet
from pipelines.storage.creation import MARKER_TABLE, ORIGIN, claim_origin, property_of
from pipelines.storage.log_table import LogTable
from pipelines.storage.recovery import retraction
from pipelines.storage.recovery.retraction import Retraction
from pipelines.storage.replay import COVERED, REJECTED, RETRACTED, Claim, Status
from pipelines.storage.scan import literal, quoted
from pipelines.storage.stores.locks import turn
from pipelines.timeframes import Timeframe, utc_now

if TYPE_CHECKING:
    from pipelines.config import DeltaLakeSettings
    from pipelines.storage.lake import Lake

_INSTANT = timedelta(microseconds=1)
_STANDING: tuple[Status, ...] = (COVERED, REJECTED)


@dataclass(frozen=True, slots=True)
class CoverageEntry:
    """A provider answered for all of [start, end) (aware UTC); `rejected` where rows of it were refused.

    `retracted` takes back what was recorded before for that time: its rows are gone, and must be asked for again.
    """

    dataset: str
    subject: str
    timeframe: str | None
    provider: str
    start: datetime
    end: datetime
    status: Status
    rows: int


class CoverageLog:
    """The table `ingest_coverage` of one lake."""

    def __init__(self, lake: Lake, settings: DeltaLakeSettings) -> None:
        self._lake = lake
        self._settings = settings
        self._log = LogTable(lake, MARKER_TABLE, settings.commit_retries)

    def record(self, entries: Sequence[CoverageEntry], run_id: str, *, synthetic: bool = False) -> int | None:
        """Append entries in one commit and return its version; without entries nothing happens.

        Raises:
            MixedOriginError: the lake holds data of the other origin.
            StorageError: the log cannot be written; nothing was committed.
        """
        if not entries:
            return None
        claim_origin(self._lake, self._settings, synthetic=synthetic)
        rows = _rows(entries, run_id, utc_now())
        with turn(self._lake.root, MARKER_TABLE):
            version = self._log.append(rows)
            self._log.compact_if_scattered()
        return version

    def retractions_after(
        self, dataset: str, timeframe: Timeframe | None, instant: datetime, built_by: Collection[str] | None = None
    ) -> list[Retraction]:
        """Return what taking back everything recorded at or after an instant (aware UTC) amounts to; writes nothing.

        What earlier entries vouch for stays. With `built_by` it is about bars that were built for those providers from
        finer ones: of these nothing stays, for one that was known before may have been built anew since.

        Too much is taken back rather than too little: it costs a refetch whose rows are dropped as repeats, while a
        claim too many would lose rows without a word.
        """
        return retraction.since(self._of(dataset, timeframe, built_by), instant, anew=built_by is not None)

    def retract_after(
        self,
        dataset: str,
        timeframe: Timeframe | None,
        instant: datetime,
        run_id: str,
        built_by: Collection[str] | None = None,
    ) -> list[Retraction]:
        """Take back, in one commit, everything recorded at or after an instant (aware UTC); see `retractions_after`.

        Raises:
            StorageError: the log cannot be written; nothing was committed.
        """
        return self._take_back(
            lambda log: retraction.since(_scope(log, dataset, timeframe, built_by), instant, anew=built_by is not None),
            run_id,
        )

    def retract(
        self, dataset: str, timeframe: Timeframe | None, spans: Mapping[str, IntervalSet] | None, run_id: str
    ) -> list[Retraction]:
        """Take back, in one commit, what any provider vouches for of some time.

        Args:
            dataset: a contract's id.
            timeframe: length of the bars, None for other datasets.
            spans: time by subject; None for all of every subject.
            run_id: who takes it back.

        Raises:
            StorageError: the log cannot be written; nothing was committed.
        """
        return self._take_back(lambda log: retraction.inside(_scope(log, dataset, timeframe), spans), run_id)

    def _take_back(self, worked_out: Callable[[pa.Table], list[Retraction]], run_id: str) -> list[Retraction]:
        """Commit retractions only onto the very log they were worked out from: another one's must not be undone."""
        for _ in range(self._settings.commit_retries + 1):
            if not self._log.exists:
                return []
            with turn(self._lake.root, MARKER_TABLE):
                table = self._log.open()
                log = self._log.rows_of(table)
                found = worked_out(log)
                if not found or self._log.append_onto(table, _retraction_rows(found, log, run_id)):
                    return found
        raise ConcurrentWriteError(f"others recorded coverage in {self._lake.root.address} all the time; run it again")

    def _of(self, dataset: str, timeframe: Timeframe | None, providers: Collection[str] | None = None) -> pa.Table:
        return _scope(self.read(dataset=dataset), dataset, timeframe, providers)

    @property
    def synthetic(self) -> bool | None:
        """Whether what the log speaks of is made up; None for a lake without a log."""
        if not self._log.exists:
            return None
        return property_of(self._log.open(), ORIGIN) == "synthetic"

    def read(self, dataset: str | None = None, subject: str | None = None, timeframe: str | None = None) -> pa.Table:
        """Return the entries of a dataset, subject and timeframe, oldest record first; empty in a new lake."""
        wanted = {"dataset": dataset, "subject": subject, "timeframe": timeframe}
        where = [f"{quoted(name)} = {literal(value)}" for name, value in wanted.items() if value is not None]
        return self._log.read(where)


def _scope(
    log: pa.Table, dataset: str, timeframe: Timeframe | None, providers: Collection[str] | None = None
) -> pa.Table:
    """Return the rows about one table, and about some providers if any are named."""
    log = log.filter(pc.equal(log["dataset"], dataset))
    log = log.filter(log["timeframe"].is_null() if timeframe is None else pc.equal(log["timeframe"], timeframe.value))
    return log if providers is None else log.filter(pc.is_in(log["provider"], pa.array(sorted(providers), pa.string())))


def _retraction_rows(found: Sequence[Retraction], log: pa.Table, run_id: str) -> pa.Table:
    # Replay goes by recorded_at: a clock that went back must not put the retraction before what it takes back.
    newest = max(log["recorded_at"].to_pylist())
    instant = max(utc_now(), newest + _INSTANT)
    gone = [_entry(each.claim, each.hull, RETRACTED) for each in found]
    kept = [
        _entry(each.claim, part, status)
        for each in found
        for status in _STANDING
        for part in IntervalSet(each.kept.of(status))
    ]
    return pa.concat_tables([_rows(gone, run_id, instant), _rows(kept, run_id, instant + _INSTANT)])


def _entry(claim: Claim, span: Interval, status: Status) -> CoverageEntry:
    (dataset, subject, timeframe), provider = claim
    return CoverageEntry(dataset, subject, timeframe, provider, span.start, span.end, status, 0)


def _rows(entries: Iterable[CoverageEntry], run_id: str, recorded_at: datetime) -> pa.Table:
    given = list(entries)
    columns = {
        name: [getattr(entry, name) for entry in given]
        for name in ("dataset", "subject", "timeframe", "provider", "start", "end", "status", "rows")
    }
    columns |= {"run_id": [run_id] * len(given), "recorded_at": [recorded_at] * len(given)}
    return pa.table(columns, schema=contract_for(MARKER_TABLE).arrow_schema)
