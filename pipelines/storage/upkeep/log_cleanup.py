"""Shortens a table's log: removes commit files and checkpoints that no version to be kept needs.

Delta's own clean-up, in Spark and in delta-rs alike, knows nothing of snapshots; the tables switch it off.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import accumulate
from typing import TYPE_CHECKING

from pipelines.errors import InvalidRangeError, StorageError
from pipelines.storage.stores.objects import Listed, objects_of
from pipelines.storage.travel.history import entries
from pipelines.storage.travel.log_files import log_files
from pipelines.timeframes import utc_now

if TYPE_CHECKING:
    from deltalake import DeltaTable

    from pipelines.storage.lake import Lake


@dataclass(frozen=True, slots=True)
class LogCleanupResult:
    """The log files removed, or that would be by a dry run, as paths in the lake; `bytes` is their size.

    Versions from `oldest` to `newest` can be read afterwards.
    """

    table: str
    files: tuple[str, ...]
    bytes: int
    oldest: int
    newest: int
    retention_days: int
    dry_run: bool

    @property
    def count(self) -> int:
        """How many files."""
        return len(self.files)


def clean_log(
    lake: Lake, table_name: str, retention_days: int, pinned: Collection[int] = (), *, dry_run: bool = False
) -> LogCleanupResult:
    """Remove what lies below the newest checkpoint that leads up to every version to be kept.

    Kept are the versions of the last `retention_days`, the one that was the newest when they began (so that any instant
    of them can be read), and all from the oldest pinned one. Without such a checkpoint nothing is removed. Files go
    oldest first: killed in between, it leaves files that nothing reads, and the next run removes them. A write that
    began before all that is kept could take the number of a removed commit and be lost: with 0 days, let none be under
    way.

    Args:
        lake: the lake.
        table_name: the table.
        retention_days: how many days back an instant can be read, at least.
        pinned: versions that snapshots need.
        dry_run: only say what would be removed.

    Raises:
        TableNotFoundError: no such table; names the nearest.
        InvalidRangeError: the retention is no whole number of days from 0.
        StorageError: the log cannot be read, or a file could not be removed; the table is whole.
    """
    if not isinstance(retention_days, int) or isinstance(retention_days, bool) or retention_days < 0:
        raise InvalidRangeError(f"retention_days must be a whole number of days, not {retention_days!r}")
    table = lake.open(table_name)
    log = log_files(lake.root, table_name)
    readable = log.readable()
    current = _current_at(table, utc_now() - timedelta(days=retention_days), readable)
    # What a snapshot needs and is gone holds nothing back.
    needed = min([current, *(version for version in pinned if version in readable)])
    base = max((version for version in log.checkpoints if version <= needed), default=None)
    going = [] if base is None else [entry for version, entry in log.files if version < base]
    if going and not dry_run:
        # All rests on this checkpoint afterwards: read it whole while there is still another way.
        lake.open(table_name, base).get_add_actions()
        _remove(lake, table_name, going)
    return LogCleanupResult(
        table=table_name,
        files=tuple(entry.path for entry in going),
        bytes=sum(entry.size for entry in going),
        oldest=readable.start if base is None else max(readable.start, base),
        newest=int(table.version()),
        retention_days=retention_days,
        dry_run=dry_run,
    )


def _current_at(table: DeltaTable, instant: datetime, readable: range) -> int:
    """Return the version that was the newest at an instant; the oldest readable one if all are younger."""
    commits = sorted((int(e["version"]), e["timestamp"]) for e in entries(table) if e["version"] in readable)
    # A clock may go back between commits; a version is never older than the one before.
    times = accumulate((time for _, time in commits), max)
    older = [version for (version, _), time in zip(commits, times, strict=True) if time <= instant]
    return max(older, default=readable.start)


def _remove(lake: Lake, table_name: str, files: Sequence[Listed]) -> None:
    objects = objects_of(lake.root)
    for entry in files:
        try:
            objects.delete(entry.path)
        except OSError as error:
            raise StorageError(f"cannot remove {entry.path} from the log of {table_name}: {error}") from error
