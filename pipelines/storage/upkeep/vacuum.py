"""Removal of files that no kept version needs."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

from deltalake import CommitProperties, DeltaTable
from deltalake.exceptions import DeltaError
from pyarrow.fs import FileType

from pipelines.errors import ConcurrentWriteError, StorageError
from pipelines.storage.delta_rs import KEEP_LOG
from pipelines.storage.faults import explain
from pipelines.storage.files import store_of
from pipelines.storage.stores.locks import turn
from pipelines.storage.travel.snapshots import Snapshots

if TYPE_CHECKING:
    from pipelines.storage.lake import Lake

# Delta keeps removed files at least this long: a slow reader or an uncommitted write may still need younger ones.
SAFE_RETENTION_HOURS = 168


@dataclass(frozen=True, slots=True)
class VacuumResult:
    """The files removed, or that would be by a dry run, as paths in the table's folder; `bytes` is their size."""

    table: str
    files: tuple[str, ...]
    bytes: int
    retention_hours: int
    dry_run: bool

    @property
    def count(self) -> int:
        """How many files."""
        return len(self.files)


def vacuum(
    lake: Lake, table_name: str, retention_hours: int = 720, *, dry_run: bool = False, force: bool = False
) -> VacuumResult:
    """Remove the files that no version of the last `retention_hours` needs, and those of writes that never committed.

    Older versions cannot be read afterwards, but for those that snapshots of the lake pin. The log forgets when a file
    was removed from the table after the table's `delta.deletedFileRetentionDuration` (7 days if unset); a longer
    retention holds no longer than that for such files.
    No JVM; when there is nothing to remove, nothing is committed.

    Raises:
        TableNotFoundError: no such table; names the nearest.
        ConcurrentWriteError: forced, and a writer was at work all the time.
        StorageError: the retention is under the safe limit and not forced, a file could not be removed, or a snapshot
            needs a version that is gone.
    """
    _check_retention(retention_hours, force=force)
    with nullcontext(enter_result=True) if dry_run else turn(lake.root, table_name) as alone:
        # Below the limit, the files of a write that is under way would count as left behind.
        if lake.root.is_local and not alone and retention_hours < SAFE_RETENTION_HOURS:
            raise ConcurrentWriteError(f"{table_name} is being written; vacuum it when its writers are done")
        table, pinned = lake.open(table_name), _pinned(lake, table_name)
        sizes = _sizes(table_name, lake, _expired(table, retention_hours, pinned, dry_run=True))
        if sizes and not dry_run:
            _expired(table, retention_hours, pinned, dry_run=False)
    return VacuumResult(table_name, tuple(sizes), sum(sizes.values()), retention_hours, dry_run)


def _check_retention(hours: int, *, force: bool) -> None:
    if not isinstance(hours, int) or isinstance(hours, bool) or hours < 0:
        raise StorageError(f"retention_hours must be a whole number of hours, not {hours!r}")
    if hours < SAFE_RETENTION_HOURS and not force:
        raise StorageError(
            f"a retention of {hours} h is under the safe {SAFE_RETENTION_HOURS} h: slow readers and time travel "
            "may need the files; force it if nothing else uses the table"
        )


def _pinned(lake: Lake, table_name: str) -> list[int]:
    """Return the versions whose files stay, whatever their age."""
    pinned = Snapshots(lake).pinned(table_name)
    present = lake.versions(table_name)
    lost = [version for version in pinned if version not in present]
    if lost:
        raise StorageError(
            f"a snapshot needs version {lost[0]} of {table_name}, which its log no longer has: delete that snapshot "
            "first, `lakehouse snapshot list` shows all"
        )
    return pinned


def _expired(table: DeltaTable, retention_hours: int, pinned: list[int], *, dry_run: bool) -> tuple[str, ...]:
    try:
        files = table.vacuum(
            retention_hours,
            dry_run=dry_run,
            # The limit is checked before, against the safe one.
            enforce_retention_duration=False,
            full=True,
            keep_versions=pinned or None,
            commit_properties=CommitProperties(max_commit_retries=20),
            post_commithook_properties=KEEP_LOG,
        )
    except (DeltaError, OSError) as error:
        raise StorageError(explain(error, f"cannot vacuum {table.table_uri}")) from error
    return tuple(sorted(files))


def _sizes(table_name: str, lake: Lake, files: Sequence[str]) -> dict[str, int]:
    """Return the files that are there, with their sizes.

    Ask the store: the log does not know the files of writes that never committed, and still names some that are gone.
    """
    if not files:
        return {}
    found = zip(files, store_of(table_name, lake.root).get_file_info(list(files)), strict=True)
    return {file: info.size or 0 for file, info in found if info.type == FileType.File}
