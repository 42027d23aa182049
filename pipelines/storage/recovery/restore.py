"""Brings a table back to an earlier version, and lets the coverage log forget what goes with it. No JVM."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from deltalake import CommitProperties
from deltalake.exceptions import CommitFailedError, DeltaError

from pipelines.contracts import Contract
from pipelines.errors import ConcurrentWriteError, InvalidRangeError, StorageError
from pipelines.storage.coverage import CoverageLog
from pipelines.storage.delta_rs import KEEP_LOG
from pipelines.storage.faults import explain
from pipelines.storage.recovery.held_files import HeldFile, held_files, stored_files, total_rows
from pipelines.storage.recovery.retraction import Retraction
from pipelines.storage.stores.locks import turn
from pipelines.storage.travel.history import entries
from pipelines.storage.travel.moments import moment, open_at
from pipelines.storage.undeclared import contract_of
from pipelines.timeframes import EPOCH, Timeframe

if TYPE_CHECKING:
    from collections.abc import Collection

    from pipelines.storage.lake import Lake
    from pipelines.storage.scan import Instant

_VERSIONS_LOOKED_AT = 200


@dataclass(frozen=True, slots=True)
class RestoreResult:
    """What a restore did, or would do; rows and files are what it takes out of the table and brings back into it.

    `version` is the table's version afterwards, `missing` are files that a forced restore does without.
    """

    table: str
    restored: int
    version: int
    rows_removed: int
    rows_added: int
    files_removed: int
    files_added: int
    missing: tuple[str, ...]
    retracted: tuple[Retraction, ...]
    dry_run: bool

    def as_dict(self) -> dict[str, object]:
        """Return it as plain JSON values."""
        names = ("table", "restored", "version", "rows_removed", "rows_added", "files_removed", "files_added")
        return {
            **{name: getattr(self, name) for name in names},
            "missing": list(self.missing),
            "retracted": [each.as_dict() for each in self.retracted],
            "dry_run": self.dry_run,
        }


def version_of(lake: Lake, table_name: str, version: int | None, as_of: Instant | None, snapshot: str | None) -> int:
    """Return the version that exactly one of a version, an instant and a snapshot's name means.

    Raises:
        TableNotFoundError: no such table; names the nearest.
        InvalidRangeError: none or several are given, or the instant is outside the table's history.
        StorageError: no such version or snapshot.
    """
    if version is None and as_of is None and snapshot is None:
        raise InvalidRangeError("name what to come back to: a version, an instant or a snapshot")
    view = open_at(lake, table_name, moment(as_of, version, snapshot))
    if view.ingested_by is not None:
        raise InvalidRangeError(
            f"the versions of {table_name} as of {view.ingested_by.isoformat()} are gone; "
            f"its rows of then can be read, but it can only be restored to a version"
        )
    return int(view.table.version())


def restore(
    lake: Lake, coverage: CoverageLog, table_name: str, version: int, *, dry_run: bool = False, force: bool = False
) -> RestoreResult:
    """Make an earlier version of a table its newest one, as a new commit, which can be undone in the same way.

    Coverage recorded since is taken back, and that of bars built from this table's, so that the next backfill fetches
    what is missing now. A backfill that is at work at the same time claims nothing that the restore removes: it fails,
    and fetches that again the next time.

    Args:
        lake: the lake.
        coverage: its log.
        table_name: the table.
        version: the version to come back to.
        dry_run: only say what would be done.
        force: come back to it even without the files that a vacuum has removed.

    Raises:
        TableNotFoundError: no such table; names the nearest.
        InvalidRangeError: the table is a log, or is at that version.
        ConcurrentWriteError: another writer committed meanwhile; nothing was restored.
        StorageError: no such version, files of it are gone (names those that are whole), or it cannot be written.
    """
    contract = contract_of(lake, table_name)
    if contract.is_log:
        raise InvalidRangeError(f"{table_name} is a log and is not restored: it would say again what was taken back")
    with nullcontext() if dry_run else turn(lake.root, table_name):
        now, then = lake.open(table_name), lake.open(table_name, version)
        if now.version() == version:
            raise InvalidRangeError(f"{table_name} is at version {version}; name an earlier one")
        current, wanted = held_files(now, contract), held_files(then, contract)
        missing = tuple(sorted(wanted.keys() - stored_files(lake, table_name).keys()))
        if missing and not force:
            raise _vacuumed(lake, table_name, contract, version, missing)
        since = _first_commit_after(entries(now), version)
        scopes = [(contract.timeframe_of(table_name), None), *_built_from(table_name, contract)]
        if missing:
            since = EPOCH
        removed, added = _between(current, wanted, missing)
        if dry_run:
            retracted = [
                each for frame, by in scopes for each in coverage.retractions_after(contract.id, frame, since, by)
            ]
        else:
            # Coverage first. Killed in between, the table still has rows that nobody vouches for: they are fetched
            # again and dropped as repeats. The other way round, coverage would claim rows that are gone.
            run_id = uuid.uuid4().hex
            retracted = [
                each for frame, by in scopes for each in coverage.retract_after(contract.id, frame, since, run_id, by)
            ]
            _restore(lake, table_name, version, ignore_missing=bool(missing))
            # What a backfill recorded meanwhile is about rows that it committed before; it may be dated earlier. One
            # that records later sees this commit, and takes its claim back itself.
            for frame, by in scopes:
                coverage.retract_after(contract.id, frame, since, run_id, by)
    return RestoreResult(
        table=table_name,
        restored=version,
        version=lake.open(table_name).version(),
        rows_removed=total_rows(removed),
        rows_added=total_rows(added),
        files_removed=len(removed),
        files_added=len(added),
        missing=missing,
        retracted=tuple(retracted),
        dry_run=dry_run,
    )


def _between(
    current: dict[str, HeldFile], wanted: dict[str, HeldFile], missing: Collection[str]
) -> tuple[list[HeldFile], list[HeldFile]]:
    """Return the files that go and those that come back."""
    removed = [file for path, file in current.items() if path not in wanted]
    return removed, [file for path, file in wanted.items() if path not in current and path not in missing]


def _restore(lake: Lake, table_name: str, version: int, *, ignore_missing: bool) -> None:
    once = CommitProperties(max_commit_retries=0)
    try:
        table = lake.open(table_name)
        table.restore(
            version,
            ignore_missing_files=ignore_missing,
            commit_properties=once,
            post_commithook_properties=KEEP_LOG,
        )
        if ignore_missing:
            # Restoring still names them in the log.
            table.repair(commit_properties=once, post_commithook_properties=KEEP_LOG)
    except CommitFailedError as error:
        raise ConcurrentWriteError(f"another writer of {table_name} committed first; run the restore again") from error
    except (DeltaError, OSError) as error:
        raise StorageError(explain(error, f"cannot restore {table_name} to version {version}")) from error


def _first_commit_after(commits: Iterable[dict[str, object]], version: int) -> datetime:
    """Return the earliest time of a commit after a version: coverage of its rows was recorded later.

    The earliest of all later ones, for a clock may have gone back; everything if the log no longer says.
    """
    later = {int(str(each["version"])): each["timestamp"] for each in commits if int(str(each["version"])) > version}
    if version + 1 not in later:
        return EPOCH
    return min(time for time in later.values() if isinstance(time, datetime))


def _built_from(table_name: str, contract: Contract) -> Iterator[tuple[Timeframe, frozenset[str]]]:
    """Yield the timeframes that are built from this table's bars, each with the providers it is built for."""
    from pipelines.sources.registry import SOURCES, source_class  # noqa: PLC0415 - only a restore asks for it

    base = contract.timeframe_of(table_name)
    for frame in Timeframe:
        by = {name for name in SOURCES if base and source_class(name).capabilities.derived.get(frame) is base}
        if by:
            yield frame, frozenset(by)


def _vacuumed(lake: Lake, table_name: str, contract: Contract, version: int, missing: Collection[str]) -> StorageError:
    whole = restorable(lake, table_name, contract)
    choice = f"versions that are whole: {_ranges(whole)}" if whole else "no earlier version is whole"
    return StorageError(
        f"{len(missing)} files of version {version} of {table_name} are gone, probably vacuumed; {choice}. "
        "Force it to come back to what is left of it, and fetch the rest again"
    )


def restorable(lake: Lake, table_name: str, contract: Contract) -> list[int]:
    """Return the versions before the newest one whose files are all there, of the newest 200; oldest first."""
    newest, there = lake.open(table_name).version(), stored_files(lake, table_name).keys()
    found = []
    for version in range(max(0, newest - _VERSIONS_LOOKED_AT), newest):
        try:
            files = held_files(lake.open(table_name, version), contract)
        except StorageError:
            continue
        if files.keys() <= there:
            found.append(version)
    return found


def _ranges(versions: list[int]) -> str:
    """Return 1, 2, 3, 7 as "1 to 3, 7"."""
    runs: list[list[int]] = []
    for version in versions:
        if runs and version == runs[-1][-1] + 1:
            runs[-1].append(version)
        else:
            runs.append([version])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs)
