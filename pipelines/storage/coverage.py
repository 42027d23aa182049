"""The log of what has been asked for and answered: small appends by delta-rs, no JVM, safe between processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Literal

import pyarrow as pa
from deltalake import CommitProperties, PostCommitHookProperties, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError

from pipelines.contracts import contract_for
from pipelines.errors import StorageError
from pipelines.storage.creation import MARKER_TABLE, claim_origin
from pipelines.storage.locks import turn
from pipelines.storage.scan import execute, literal, quoted
from pipelines.timeframes import utc_now

if TYPE_CHECKING:
    from pipelines.config import DeltaLakeSettings
    from pipelines.storage.lake import Lake

COMPACT_ABOVE_FILES = 64
_KEEP_LOG = PostCommitHookProperties(create_checkpoint=True, cleanup_expired_logs=False)
_ONE_TRY = CommitProperties(max_commit_retries=0)


@dataclass(frozen=True, slots=True)
class CoverageEntry:
    """A provider answered for all of [start, end) (aware UTC); `rejected` where rows of it were refused."""

    dataset: str
    subject: str
    timeframe: str | None
    provider: str
    start: datetime
    end: datetime
    status: Literal["covered", "rejected"]
    rows: int


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
        rows = _rows(entries, run_id)
        with turn(self._lake.root, MARKER_TABLE):
            version = self._append(rows)
            self._compact_if_scattered()
        return version

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


def _rows(entries: Sequence[CoverageEntry], run_id: str) -> pa.Table:
    schema = contract_for(MARKER_TABLE).arrow_schema
    recorded_at = utc_now()
    columns = {
        "dataset": [entry.dataset for entry in entries],
        "subject": [entry.subject for entry in entries],
        "timeframe": [entry.timeframe for entry in entries],
        "provider": [entry.provider for entry in entries],
        "start": [entry.start for entry in entries],
        "end": [entry.end for entry in entries],
        "status": [entry.status for entry in entries],
        "rows": [entry.rows for entry in entries],
        "run_id": [run_id] * len(entries),
        "recorded_at": [recorded_at] * len(entries),
    }
    return pa.table(columns, schema=schema)
