"""The log of what has been asked for and answered: small appends by delta-rs, no JVM, safe between processes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import pyarrow as pa
from deltalake import CommitProperties, PostCommitHookProperties, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError

from pipelines.contracts import contract_for
from pipelines.errors import StorageError
from pipelines.intervals import Interval, IntervalSet
from pipelines.storage.creation import MARKER_TABLE, ORIGIN, claim_origin, property_of
from pipelines.storage.locks import turn
from pipelines.storage.replay import COVERED, REJECTED, RETRACTED, Answers, Claim, Status, before, claim_of, replayed
from pipelines.storage.scan import execute, literal, quoted
from pipelines.timeframes import Timeframe, utc_now

if TYPE_CHECKING:
    from pipelines.config import DeltaLakeSettings
    from pipelines.storage.lake import Lake

COMPACT_ABOVE_FILES = 64
_KEEP_LOG = PostCommitHookProperties(create_checkpoint=True, cleanup_expired_logs=False)
_ONE_TRY = CommitProperties(max_commit_retries=0)
_INSTANT = timedelta(microseconds=1)


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


@dataclass(frozen=True, slots=True)
class Retraction:
    """What a provider no longer vouches for of a series; `hull` is what is recorded as taken back, `kept` anew."""

    claim: Claim
    hull: Interval
    kept: Answers
    lost: IntervalSet

    def as_dict(self) -> dict[str, object]:
        """Return it as plain JSON values."""
        (dataset, subject, timeframe), provider = self.claim
        lost = [{"start": part.start.isoformat(), "end": part.end.isoformat()} for part in self.lost]
        return {"dataset": dataset, "asset_pair": subject, "timeframe": timeframe, "provider": provider, "lost": lost}


class CoverageLog:
    """The table `ingest_coverage` of one lake."""

    def __init__(self, lake: Lake, settings: DeltaLakeSettings) -> None:
        self._lake = lake
        self._settings = settings

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
            version = self._append(rows)
            self._compact_if_scattered()
        return version

    def retractions_after(self, dataset: str, timeframe: Timeframe | None, instant: datetime) -> list[Retraction]:
        """Return what taking back everything recorded at or after an instant (aware UTC) amounts to; writes nothing.

        What earlier entries vouch for stays. Too much is taken back rather than too little: it costs a refetch whose
        rows are dropped as repeats, while a claim too many would lose rows without a word.
        """
        return self._retractions(self._of(dataset, timeframe), instant)

    def retract_after(
        self, dataset: str, timeframe: Timeframe | None, instant: datetime, run_id: str
    ) -> list[Retraction]:
        """Take back, in one commit, everything recorded at or after an instant (aware UTC); see `retractions_after`.

        Raises:
            StorageError: the log cannot be written; nothing was committed.
        """
        with turn(self._lake.root, MARKER_TABLE):
            log = self._of(dataset, timeframe)
            found = self._retractions(log, instant)
            self._record_retractions(found, log, run_id)
        return found

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
        with turn(self._lake.root, MARKER_TABLE):
            log = self._of(dataset, timeframe)
            found = list(_taken_back(replayed(log), spans))
            self._record_retractions(found, log, run_id)
        return found

    def _retractions(self, log: pa.Table, instant: datetime) -> list[Retraction]:
        now, then = replayed(log), replayed(before(log, instant))
        later: dict[Claim, list[Interval]] = {}
        for row in log.to_pylist():
            if row["recorded_at"] >= instant:
                later.setdefault(claim_of(row), []).append(Interval(row["start"], row["end"]))
        found = []
        for claim, parts in later.items():
            hull = Interval(min(part.start for part in parts), max(part.end for part in parts))
            kept = _inside(then.get(claim, Answers()), hull)
            found.append(Retraction(claim, hull, kept, now[claim].done & IntervalSet([hull]) - kept.done))
        return found

    def _record_retractions(self, found: Sequence[Retraction], log: pa.Table, run_id: str) -> None:
        if not found:
            return
        # Replay goes by recorded_at: a clock that went back must not put the retraction before what it takes back.
        newest = max(log["recorded_at"].to_pylist())
        instant = max(utc_now(), newest + _INSTANT)
        gone = [_entry(each.claim, each.hull, RETRACTED) for each in found]
        kept = [
            _entry(each.claim, part, status)
            for each in found
            for status in (COVERED, REJECTED)
            for part in IntervalSet(each.kept.of(status))
        ]
        self._append(pa.concat_tables([_rows(gone, run_id, instant), _rows(kept, run_id, instant + _INSTANT)]))

    def _of(self, dataset: str, timeframe: Timeframe | None) -> pa.Table:
        log = self.read(dataset=dataset, timeframe=None if timeframe is None else timeframe.value)
        return log if timeframe else log.filter(log["timeframe"].is_null())

    @property
    def synthetic(self) -> bool | None:
        """Whether what the log speaks of is made up; None for a lake without a log."""
        if not self._lake.exists(MARKER_TABLE):
            return None
        return property_of(self._lake.open(MARKER_TABLE), ORIGIN) == "synthetic"

    def _append(self, rows: pa.Table) -> int:
        try:
            table = self._lake.open(MARKER_TABLE)
            write_deltalake(
                table,
                rows,
                mode="append",
                commit_properties=CommitProperties(max_commit_retries=max(1, self._settings.commit_retries)),
                post_commithook_properties=_KEEP_LOG,
            )
        except (DeltaError, OSError) as error:
            raise StorageError(f"cannot record coverage in {self._lake.root.address}: {error}") from error
        return int(table.version())

    def read(self, dataset: str | None = None, subject: str | None = None, timeframe: str | None = None) -> pa.Table:
        """Return the entries of a dataset, subject and timeframe, oldest record first; empty in a new lake."""
        schema = contract_for(MARKER_TABLE).arrow_schema
        if not self._lake.exists(MARKER_TABLE):
            return schema.empty_table()
        wanted = {"dataset": dataset, "subject": subject, "timeframe": timeframe}
        where = [f"{quoted(name)} = {literal(value)}" for name, value in wanted.items() if value is not None]
        sql = f"SELECT {', '.join(map(quoted, schema.names))} FROM source"  # noqa: S608 - literals are escaped
        rows = execute(self._lake.open(MARKER_TABLE), sql + (f" WHERE {' AND '.join(where)}" if where else ""))
        return rows.cast(schema).sort_by("recorded_at")

    def _compact_if_scattered(self) -> None:
        """Merge small files; what others append meanwhile stays, and a compaction that loses a race is not done."""
        table = self._lake.open(MARKER_TABLE)
        if len(table.file_uris()) <= COMPACT_ABOVE_FILES:
            return
        try:
            table.optimize.compact(commit_properties=_ONE_TRY, post_commithook_properties=_KEEP_LOG)
        except (CommitFailedError, DeltaError):
            # Another process compacted first; the entries are all there either way.
            return


def _inside(answers: Answers, hull: Interval) -> Answers:
    whole = IntervalSet([hull])
    return Answers(list(IntervalSet(answers.covered) & whole), list(IntervalSet(answers.rejected) & whole))


def _taken_back(standing: Mapping[Claim, Answers], spans: Mapping[str, IntervalSet] | None) -> Iterator[Retraction]:
    for claim, answers in standing.items():
        (_, subject, _), _ = claim
        lost = answers.done if spans is None else answers.done & spans.get(subject, IntervalSet())
        for part in lost:
            yield Retraction(claim, part, Answers(), IntervalSet([part]))


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
