"""A table of the lake's own records: small appends by delta-rs, no JVM, safe between processes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError

from pipelines.contracts import contract_for
from pipelines.errors import StorageError
from pipelines.storage.delta_rs import KEEP_LOG
from pipelines.storage.scan import execute, quoted

if TYPE_CHECKING:
    from pipelines.storage.lake import Lake

COMPACT_ABOVE_FILES = 64
# The column that says when a row of a log was recorded.
RECORDED: dict[str, str] = {"ingest_coverage": "recorded_at", "quality_results": "checked_at"}
_ONE_TRY = CommitProperties(max_commit_retries=0)


class LogTable:
    """One log of one lake; its table is there before the first append."""

    def __init__(self, lake: Lake, name: str, commit_retries: int) -> None:
        self._lake = lake
        self._name = name
        self._retries = max(1, commit_retries)

    @property
    def exists(self) -> bool:
        """Whether the log has its table."""
        return self._lake.exists(self._name)

    def open(self) -> DeltaTable:
        """Open the log at its newest version."""
        return self._lake.open(self._name)

    def append(self, rows: pa.Table) -> int:
        """Append rows in one commit, behind whatever others commit meanwhile; returns the version.

        Raises:
            StorageError: the log cannot be written; nothing was committed.
        """
        table = self.open()
        try:
            _write(table, rows, self._retries)
        except (DeltaError, OSError) as error:
            raise self._unwritable(error) from error
        return int(table.version())

    def append_onto(self, table: DeltaTable, rows: pa.Table) -> bool:
        """Append onto the very version that is open; returns whether no other commit came first.

        Raises:
            StorageError: the log cannot be written; nothing was committed.
        """
        try:
            _write(table, rows, 0)
        except CommitFailedError:
            return False
        except (DeltaError, OSError) as error:
            raise self._unwritable(error) from error
        return True

    def read(self, where: Sequence[str] = ()) -> pa.Table:
        """Return the rows that meet all SQL conditions, oldest record first; empty where there is no table yet."""
        return self.rows_of(self.open(), where) if self.exists else self._schema.empty_table()

    def rows_of(self, table: DeltaTable, where: Sequence[str] = ()) -> pa.Table:
        """Return the rows of an open version of the log, oldest record first."""
        sql = f"SELECT {', '.join(map(quoted, self._schema.names))} FROM source"  # noqa: S608 - literals are escaped
        rows = execute(table, sql + (f" WHERE {' AND '.join(where)}" if where else ""))
        return rows.cast(self._schema).sort_by(RECORDED[self._name])

    def compact_if_scattered(self) -> None:
        """Merge small files; what others append meanwhile stays, and a compaction that loses a race is not done."""
        table = self.open()
        if len(table.file_uris()) <= COMPACT_ABOVE_FILES:
            return
        try:
            table.optimize.compact(commit_properties=_ONE_TRY, post_commithook_properties=KEEP_LOG)
        except (CommitFailedError, DeltaError):
            # Another process compacted first; the rows are all there either way.
            return

    @property
    def _schema(self) -> pa.Schema:
        return contract_for(self._name).arrow_schema

    def _unwritable(self, error: Exception) -> StorageError:
        return StorageError(f"cannot write {self._name} in {self._lake.root.address}: {error}")


def _write(table: DeltaTable, rows: pa.Table, retries: int) -> None:
    once = CommitProperties(max_commit_retries=retries)
    write_deltalake(table, rows, mode="append", commit_properties=once, post_commithook_properties=KEEP_LOG)
