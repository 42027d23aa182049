"""When to look at a table: now, at a version, at an instant, or at a snapshot of the lake."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import pyarrow.fs as pafs
from deltalake import DeltaTable

from pipelines.errors import InvalidRangeError
from pipelines.storage.creation import property_of
from pipelines.storage.files import live_files, store_of
from pipelines.storage.scan import INGESTED_AT, Instant, View, physical_schema
from pipelines.storage.travel.history import entries
from pipelines.storage.travel.snapshots import Snapshots, is_snapshot_name
from pipelines.timeframes import parse_instant, utc_now

if TYPE_CHECKING:
    from pipelines.storage.lake import Lake

_APPEND_ONLY = "delta.appendOnly"
_VACUUM = "VACUUM"
# What may take rows away; a property does not keep a restore from it.
_REMOVING = {"RESTORE", "DELETE", "UPDATE", "MERGE", "TRUNCATE"}


@dataclass(frozen=True, slots=True)
class Moment:
    """At most one of an instant (aware UTC), a version and a snapshot's name; none means now."""

    as_of: datetime | None = None
    version: int | None = None
    snapshot: str | None = None


def moment(as_of: Instant | None = None, version: int | None = None, snapshot: str | None = None) -> Moment:
    """Return a moment from what a user gives.

    Raises:
        InvalidRangeError: more than one is given, the instant is no time, or the version no whole number from 0.
    """
    if sum(each is not None for each in (as_of, version, snapshot)) > 1:
        raise InvalidRangeError("give one of as_of_timestamp, version and snapshot, not several")
    if version is not None and (not isinstance(version, int) or isinstance(version, bool) or version < 0):
        raise InvalidRangeError(f"{version!r} is not a version; versions are whole numbers from 0")
    return Moment(None if as_of is None else instant_of(as_of), version, snapshot)


def instant_of(value: Instant) -> datetime:
    """Return a user's instant as aware UTC; a zoneless one is taken as UTC.

    Raises:
        InvalidRangeError: it is not a time.
    """
    try:
        # NaT is a datetime that does not even equal itself.
        if isinstance(value, str | date | datetime) and value == value:  # noqa: PLR0124
            return parse_instant(value)
    except (OverflowError, ValueError):
        pass
    raise InvalidRangeError(f"{value!r} is not a date or time; write 2025-12-07 or 2025-12-07T14:30:00Z")


def moment_named(lake: Lake, value: int | Instant) -> Moment:
    """Return the moment that one word names: a version, else a snapshot that there is, else an instant.

    Digits alone are a version, so that 20251207 is none of a day.

    Raises:
        InvalidRangeError: it is none of the three.
    """
    if isinstance(value, int):
        return moment(version=value)
    if isinstance(value, str):
        word = value.strip()
        if word.isascii() and word.isdigit():
            return moment(version=int(word))
        if is_snapshot_name(word) and word in Snapshots(lake).names():
            return moment(snapshot=word)
    try:
        return Moment(as_of=instant_of(value))
    except InvalidRangeError:
        raise InvalidRangeError(
            f"{value!r} is no version, as 3, no instant, as 2025-12-07T14:30:00Z, and no snapshot of this lake"
        ) from None


def open_at(lake: Lake, table_name: str, when: Moment) -> View:
    """Open a table as it was at a moment.

    An instant means the newest version committed at or before it, by the instants that the history shows. Where that
    version or its files are gone, an append-only table that notes `ingested_at` still shows what it held then, for rows
    are not removed and a restatement is a later row; only what a restore took away before the retained history is not
    there.

    Raises:
        TableNotFoundError: no such table; names the nearest.
        SnapshotError: no such snapshot, or the table is not in it.
        InvalidRangeError: the instant is outside the table's history, whose range is named.
        StorageError: no such version; names the range.
    """
    if when.snapshot is not None:
        return View(lake.open(table_name, Snapshots(lake).get(when.snapshot).version_of(table_name)))
    if when.as_of is not None:
        return _as_of(lake, table_name, when.as_of)
    return View(lake.open(table_name, when.version))


def _as_of(lake: Lake, table_name: str, instant: datetime) -> View:
    table = lake.open(table_name)
    first = lake.versions(table_name).start
    log = sorted((entry for entry in entries(table) if entry["version"] >= first), key=lambda entry: entry["version"])
    # A clock may go back between commits; a version is never older than the one before.
    times = list(accumulate((entry["timestamp"] for entry in log), max))
    now, version = utc_now(), first - 1
    if times and times[0] <= instant <= max(now, times[-1]):
        version = next(e["version"] for e, time in zip(reversed(log), reversed(times), strict=True) if time <= instant)
        then = lake.open(table_name, version)
        if not (_remembers(table) and _is_vacuumed(lake, table_name, then, table, log)):
            return View(then)
    elif first == 0 or instant > now or not _remembers(table):
        span = f"goes from {times[0].isoformat()} to now ({now.isoformat(timespec='seconds')})" if times else "is gone"
        raise InvalidRangeError(f"{table_name} has no version as of {instant.isoformat()}; its history {span}")
    # What a restore has taken away since is still in the version before it.
    later = (entry for entry in log if entry["version"] > version)
    loss = next((entry["version"] for entry in later if entry["operation"] in _REMOVING), None)
    return View(table if loss is None else lake.open(table_name, loss - 1), ingested_by=instant)


def _is_vacuumed(
    lake: Lake, table_name: str, then: DeltaTable, now: DeltaTable, log: Sequence[Mapping[str, Any]]
) -> bool:
    """Say whether files of an earlier version are gone; without a vacuum since, the store is not asked."""
    if not any(each["version"] > then.version() and each["operation"].startswith(_VACUUM) for each in log):
        return False
    removed = {file.location for file in live_files(then)} - {file.location for file in live_files(now)}
    found = store_of(table_name, lake.root).get_file_info(sorted(removed))
    return any(info.type != pafs.FileType.File for info in found)


def _remembers(table: DeltaTable) -> bool:
    return property_of(table, _APPEND_ONLY) == "true" and INGESTED_AT in physical_schema(table).names
