"""Mends what a check found, as far as that is safe: nothing is lost that could not be fetched again. No JVM."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import pyarrow as pa
from deltalake import CommitProperties
from deltalake.exceptions import CommitFailedError, DeltaError

from pipelines.contracts import Contract, contract_for, load_contracts
from pipelines.errors import ConcurrentWriteError, StorageError, TableNotFoundError
from pipelines.intervals import Interval, IntervalSet
from pipelines.storage.creation import MARKER_TABLE, ORIGIN, ensure_table, property_of
from pipelines.storage.delta_rs import KEEP_LOG
from pipelines.storage.faults import explain
from pipelines.storage.files import store_of
from pipelines.storage.recovery.findings import Code, Finding, FsckReport
from pipelines.storage.recovery.fsck import fsck
from pipelines.storage.recovery.held_files import LOG_FOLDER, HeldFile, held_files
from pipelines.storage.recovery.log_check import LAST_CHECKPOINT, commit_info, commit_path, read
from pipelines.storage.replay import RETRACTED
from pipelines.storage.stores.locks import turn
from pipelines.storage.stores.objects import objects_of
from pipelines.storage.travel.log_files import log_files
from pipelines.storage.travel.snapshots import Snapshots
from pipelines.storage.undeclared import contract_of, is_declared
from pipelines.timeframes import EPOCH, Timeframe

if TYPE_CHECKING:
    from pipelines.config import DeltaLakeSettings
    from pipelines.storage.coverage import CoverageLog
    from pipelines.storage.lake import Lake
    from pipelines.storage.recovery.retraction import Retraction

SET_ASIDE = ".corrupt"
_FILES = (Code.MISSING_FILE, Code.WRONG_SIZE, Code.UNREADABLE_FILE, Code.WRONG_ROWS)
# Each round mends one kind of fault, and shows what lay behind it.
_ROUNDS = 20
_ONCE = CommitProperties(max_commit_retries=0)


@dataclass(slots=True)
class RepairResult:
    """What a repair did, in sentences, what no longer counts as covered, and what is left."""

    table: str
    left: FsckReport
    done: list[str] = field(default_factory=list)
    retracted: list[Retraction] = field(default_factory=list)

    def as_dict(self) -> dict[str, object]:
        """Return it as plain JSON values."""
        retracted = [each.as_dict() for each in self.retracted]
        return {"table": self.table, "done": self.done, "retracted": retracted, "left": self.left.as_dict()}


def repair(
    lake: Lake, coverage: CoverageLog, settings: DeltaLakeSettings, table_name: str, *, deep: bool = False
) -> RepairResult:
    """Check a table and mend what can be mended safely; what is not is left, with its remedy named.

    Rows that are lost are forgotten by the log and by the coverage log, so that the next backfill fetches them again.
    A snapshot that pins a commit which counts as never made loses this table, and keeps its others. A backfill that is
    at work at the same time claims nothing that is lost: it fails, and fetches that again the next time.

    Raises:
        TableNotFoundError: there is no such table, and nothing says that there should be.
        StorageError: the store refused; what was done before stays done, and may be gone on with.
    """
    mender = _Mender(lake, coverage, settings, table_name)
    # What is recorded in the coverage log takes its turn by itself.
    with nullcontext() if table_name == MARKER_TABLE else turn(lake.root, table_name):
        report = fsck(lake, coverage, table_name, deep=deep)
        for _ in range(_ROUNDS):
            if not mender.mend(report):
                break
            try:
                report = fsck(lake, coverage, table_name, deep=deep)
            except TableNotFoundError:
                # Its only commit never was; nothing speaks of it any more.
                report = FsckReport(table_name, None, 0)
    return RepairResult(table_name, report, mender.done, mender.retracted)


class _Mender:
    def __init__(self, lake: Lake, coverage: CoverageLog, settings: DeltaLakeSettings, table_name: str) -> None:
        self._lake = lake
        self._coverage = coverage
        self._settings = settings
        self._table = table_name
        # Of a table that no contract declares, coverage knows nothing.
        self._contract = contract_for(table_name) if is_declared(table_name) else None
        self._objects = objects_of(lake.root)
        self._run_id = uuid.uuid4().hex
        self.done: list[str] = []
        self.retracted: list[Retraction] = []

    def mend(self, report: FsckReport) -> bool:
        """Mend the first kind of fault that can be; returns whether there was one."""
        # What stands in the way of reading the log comes first.
        steps: list[tuple[tuple[Code, ...], Callable[[list[Finding]], None]]] = [
            ((Code.LOST_TABLE,), self._log_again),
            ((Code.BAD_LAST_CHECKPOINT,), self._forget_last_checkpoint),
            ((Code.BAD_CHECKPOINT,), self._checkpoints_aside),
            ((Code.TRUNCATED_COMMIT,), self._commit_aside),
            (_FILES, self._files),
            ((Code.NO_CHECKPOINT,), self._checkpoint),
        ]
        for codes, step in steps:
            found = [finding for finding in report.of(*codes) if finding.remedy.startswith("lakehouse fsck")]
            before = len(self.done)
            if found:
                step(found)
            if len(self.done) > before:
                return True
        return False

    def _log_again(self, _: list[Finding]) -> None:
        """Make a log anew, with the origin that the other tables have."""
        others = [self._lake.open(name) for name in self._lake.names() if name != MARKER_TABLE]
        synthetic = any(property_of(table, ORIGIN) == "synthetic" for table in others)
        ensure_table(self._lake, self._table, self._settings, synthetic=synthetic)
        after = ": backfills fetch again, and drop what is there already" if self._table == MARKER_TABLE else ""
        self.done.append(f"made the log anew, empty{after}")

    def _forget_last_checkpoint(self, found: list[Finding]) -> None:
        self._drop_hint()
        self.done.append(f"removed {found[0].where}: {found[0].what}")
        self._checkpoint_if_readable()

    def _drop_hint(self) -> None:
        # Hadoop's checksum of a file would not fit the next one of that name.
        for name in (LAST_CHECKPOINT, f".{LAST_CHECKPOINT}.crc"):
            self._objects.delete(f"{self._table}/{LOG_FOLDER}/{name}")

    def _checkpoints_aside(self, found: list[Finding]) -> None:
        self._drop_hint()
        for finding in found:
            self._log_file_aside(finding.where)
            self.done.append(f"set {finding.where} aside: {finding.what}")
        self._checkpoint_if_readable()

    def _commit_aside(self, found: list[Finding]) -> None:
        """Take the newest commit for one that never was. Coverage first: a kill in between costs a refetch only."""
        version = found[0].version or 0
        since = self._time_of(version - 1)
        # The next commit gets that number: a snapshot of this one must not be taken for one of that.
        unpinned = Snapshots(self._lake).unpin(self._table, version)
        if self._table == MARKER_TABLE:
            self._log_file_aside(commit_path(version))
            self._retract_everything()
        else:
            self._retract_after(since)
            self._log_file_aside(commit_path(version))
            # What a backfill recorded meanwhile is about this commit too.
            self._retract_after(since)
        self.done += [
            f"took {self._table} out of the snapshot {name}, which pinned commit {version}; it keeps its other tables"
            for name in unpinned
        ]
        self.done.append(f"set {found[0].where} aside: {found[0].what}; its rows count as never committed")

    def _retract_after(self, since: datetime) -> None:
        if self._contract is None:
            return
        frame = self._contract.timeframe_of(self._table)
        found = self._coverage.retract_after(self._contract.id, frame, since, self._run_id)
        self.retracted += [each for each in found if each.lost]

    def _time_of(self, version: int) -> datetime:
        """Return when a version was committed; the beginning of time if its commit does not say."""
        try:
            info = commit_info(read(store_of(self._table, self._lake.root), commit_path(version)))
        except OSError:
            return EPOCH
        return EPOCH + timedelta(milliseconds=int(str(info.get("timestamp", 0))))

    def _log_file_aside(self, path: str) -> None:
        whole = f"{self._table}/{path}"
        self._objects.put(whole + SET_ASIDE, self._objects.read(whole))
        self._objects.delete(whole)
        folder, _, name = whole.rpartition("/")
        # Spark's checksums of it: of the version, and of the file.
        for checksum in (name.removesuffix(".json") + ".crc", f".{name}.crc"):
            self._objects.delete(f"{folder}/{checksum}")

    def _files(self, found: list[Finding]) -> None:
        """Bring data files back where the bucket keeps versions; else forget them, in the log and in coverage."""
        held = held_files(self._lake.open(self._table), contract_of(self._lake, self._table))
        back = {finding.where for finding in found if self._brought_back(held[finding.where])}
        self.done += [f"brought back {path} from the versions that the bucket keeps" for path in sorted(back)]
        lost = [finding for finding in found if finding.where not in back]
        # What nobody fetches is not forgotten either.
        if not lost or self._contract is None:
            return
        doubtful = self._table == MARKER_TABLE and self._may_retract({finding.where for finding in lost})
        # Coverage first: a kill in between costs a refetch only.
        gone = [held[finding.where] for finding in lost]
        self._retract(self._contract, gone)
        for finding in lost:
            if finding.code is not Code.MISSING_FILE:
                self._data_file_aside(finding.where)
        try:
            self._lake.open(self._table).repair(commit_properties=_ONCE, post_commithook_properties=KEEP_LOG)
        except CommitFailedError as error:
            raise ConcurrentWriteError(f"another writer of {self._table} was faster; run the repair again") from error
        except (DeltaError, OSError) as error:
            raise StorageError(explain(error, f"cannot repair {self._table}")) from error
        # What a backfill recorded meanwhile may be about these files; one that records later sees this commit.
        self._retract(self._contract, gone)
        self.done += [f"forgot {finding.where}: {finding.what}" for finding in lost]
        if doubtful:
            self._retract_everything()

    def _brought_back(self, file: HeldFile) -> bool:
        if self._lake.root.is_local:
            return False
        from pipelines.storage.recovery.bucket_versions import bring_back  # noqa: PLC0415 - only a lake in S3 has them

        return bring_back(self._lake.root, f"{self._table}/{file.path}", file.bytes, file.rows)

    def _data_file_aside(self, path: str) -> None:
        whole = f"{self._table}/{path}"
        if self._lake.root.is_local:
            place = self._lake.root.path / whole
            place.rename(place.with_name(place.name + SET_ASIDE))
            return
        from pipelines.storage.recovery.bucket_versions import move  # noqa: PLC0415 - only for a lake in S3

        move(self._lake.root, whole, whole + SET_ASIDE)

    def _retract(self, contract: Contract, lost: Iterable[HeldFile]) -> None:
        if contract.is_log:
            return
        frame = contract.timeframe_of(self._table)
        log = self._coverage.read(dataset=contract.id)
        subjects = set(log["subject"].to_pylist())
        spans: dict[str, IntervalSet] = {}
        for file in lost:
            span = IntervalSet([_whole_bars(file.span, frame)]) if file.span else None
            if span is None:
                self.retracted += self._coverage.retract(contract.id, frame, None, self._run_id)
                return
            for subject in {file.subject} if file.subject else subjects:
                spans[subject] = spans.get(subject, IntervalSet()) | span
        self.retracted += self._coverage.retract(contract.id, frame, spans, self._run_id)

    def _may_retract(self, lost: set[str]) -> bool:
        """Say whether lost files of the coverage log may have taken something back; their statistics tell."""
        actions = pa.RecordBatchReader.from_stream(
            self._lake.open(MARKER_TABLE).get_add_actions(flatten=True)
        ).read_all()
        rows = [row for row in actions.to_pylist() if row["path"] in lost]
        return any(row.get("max.status", RETRACTED) == RETRACTED for row in rows)

    def _retract_everything(self) -> None:
        """Take back all that is left of the coverage log, which may claim what a lost entry had taken back."""
        for contract in load_contracts().values():
            frames: set[Timeframe | None] = {contract.timeframe_of(name) for name in contract.tables}
            for frame in frames:
                self.retracted += self._coverage.retract(contract.id, frame, None, self._run_id)
        self.done.append("took all coverage back: what was lost of the log may have taken some back")

    def _checkpoint(self, _: list[Finding]) -> None:
        self._checkpoint_if_readable()

    def _checkpoint_if_readable(self) -> None:
        newest = max(log_files(self._lake.root, self._table).commits, default=None)
        try:
            table = self._lake.open(self._table)
            if table.version() == newest:
                table.create_checkpoint()
                self.done.append(f"wrote a checkpoint of version {newest}")
        except (StorageError, DeltaError, OSError):
            # Something else is wrong with the log; that comes next.
            return


def _whole_bars(span: Interval, frame: Timeframe | None) -> Interval:
    """Widen a span of event times to whole bars; equities' may open off the hour."""
    if frame is None:
        return span
    return Interval(frame.floor(span.start), frame.ceil(span.end + frame.step))
