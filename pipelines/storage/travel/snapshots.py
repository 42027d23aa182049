"""Snapshots of a whole lake: the version of every table at one instant, under a name, kept until it is deleted."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING

from pipelines.errors import LakehouseError, SnapshotError, StorageError
from pipelines.storage.creation import MARKER_TABLE
from pipelines.storage.stores.objects import Objects, objects_of
from pipelines.timeframes import parse_instant, utc_now

if TYPE_CHECKING:
    from pipelines.storage.lake import Lake

_FOLDER = "_snapshots"
_SUFFIX = ".json"
# Lower case only: on some disks two names that differ in case are one file. Digits alone would read as a version.
_NAME = re.compile(r"(?![0-9]+$)[a-z0-9][a-z0-9_.-]{0,63}")
_FORMAT = 1
# In the class below, `list` is a method.
Versions = list[int]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The versions of a lake's tables as they were found right after `instant` (aware UTC)."""

    name: str
    instant: datetime
    tables: Mapping[str, int]
    note: str | None = None

    def version_of(self, table_name: str) -> int:
        """Return the pinned version of a table.

        Raises:
            SnapshotError: the snapshot has no such table; names those it has.
        """
        if table_name not in self.tables:
            known = ", ".join(self.tables)
            raise SnapshotError(f"the snapshot {self.name} has no table {table_name}; it has {known}")
        return self.tables[table_name]

    def as_dict(self) -> dict[str, object]:
        """Return it as plain JSON values."""
        return {
            "name": self.name,
            "instant": self.instant.isoformat(),
            "note": self.note,
            "tables": dict(self.tables),
        }


class Snapshots:
    """The snapshots of one lake. Vacuum and log clean-up spare what they pin."""

    def __init__(self, lake: Lake) -> None:
        self._lake = lake

    @cached_property
    def _objects(self) -> Objects:
        return objects_of(self._lake.root)

    def create(self, name: str, note: str | None = None) -> Snapshot:
        """Pin the present version of every table.

        Coverage is looked at first, and data is committed before its coverage: so no pinned coverage speaks of data
        that is not pinned too. Versions that become old while this runs are safe from any vacuum but a forced one.

        Raises:
            SnapshotError: the name is taken or is none, or the lake has no tables.
            StorageError: a log cannot be read, or the lake cannot be written.
        """
        path = _path(name)
        instant = utc_now()
        names = self._lake.names()
        if not names:
            raise SnapshotError(f"the lake {self._lake.root.address} has no tables to make a snapshot of")
        first = sorted(names, key=lambda table: (table != MARKER_TABLE, table))
        versions = {table: int(self._lake.open(table).version()) for table in first}
        made = Snapshot(name, instant, dict(sorted(versions.items())), note)
        try:
            self._objects.put_new(path, _written(made))
        except FileExistsError:
            raise SnapshotError(f"there is a snapshot {name} already; delete it first, or take another name") from None
        except OSError as error:
            raise StorageError(f"cannot write the snapshot {name} in {self._lake.root.address}: {error}") from error
        return made

    def list(self) -> tuple[Snapshot, ...]:
        """Return all snapshots, oldest first.

        Raises:
            StorageError: one cannot be read; names its file.
        """
        found = (self._read(name) for name in self.names())
        return tuple(sorted((each for each in found if each), key=lambda each: (each.instant, each.name)))

    def get(self, name: str) -> Snapshot:
        """Return a snapshot.

        Raises:
            SnapshotError: there is no such one; names the nearest.
            StorageError: it cannot be read; names its file.
        """
        _path(name)
        if (found := self._read(name)) is None:
            raise self._unknown(name)
        return found

    def delete(self, name: str) -> Snapshot:
        """Remove a snapshot and return what it was; what it pinned may go with the next vacuum and clean-up.

        Raises:
            SnapshotError: there is no such one; names the nearest.
        """
        found = self.get(name)
        try:
            self._objects.delete(_path(name))
        except OSError as error:
            raise StorageError(f"cannot delete the snapshot {name} in {self._lake.root.address}: {error}") from error
        return found

    def pinned(self, table_name: str) -> Versions:
        """Return the versions of a table that snapshots need, in order, each once.

        Raises:
            StorageError: a snapshot cannot be read, so that nothing may be taken as not needed.
        """
        return sorted({each.tables[table_name] for each in self.list() if table_name in each.tables})

    def unpin(self, table_name: str, version: int) -> tuple[str, ...]:
        """Take a table out of the snapshots that pin a version of it which is lost; returns their names.

        Raises:
            StorageError: a snapshot cannot be read or written.
        """
        found = [each for each in self.list() if each.tables.get(table_name) == version]
        for each in found:
            left = {name: pinned for name, pinned in each.tables.items() if name != table_name}
            try:
                self._objects.put(_path(each.name), _written(replace(each, tables=left)))
            except OSError as error:
                raise StorageError(f"cannot write the snapshot {each.name}: {error}") from error
        return tuple(each.name for each in found)

    def names(self) -> tuple[str, ...]:
        """Return the names of all snapshots, sorted."""
        if not (self._lake.root.is_local or self._lake.root.is_s3):
            # None can be made there, and no vacuum has to ask for any.
            return ()
        files = (entry.path.rpartition("/")[2] for entry in self._objects.list(_FOLDER))
        stems = (file.removesuffix(_SUFFIX) for file in files if file.endswith(_SUFFIX))
        return tuple(stem for stem in stems if _NAME.fullmatch(stem))

    def _read(self, name: str) -> Snapshot | None:
        """Return a snapshot; None if it is not there, or not any more."""
        path = _path(name)
        try:
            return _parsed(name, self._objects.read(path))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError, LakehouseError) as error:
            raise StorageError(f"cannot read the snapshot {self._lake.root.address}/{path}: {error}") from error

    def _unknown(self, name: str) -> SnapshotError:
        known = self.names()
        close = difflib.get_close_matches(name, known, n=2)
        if close:
            hint = f"did you mean {' or '.join(close)}?"
        else:
            hint = f"it has {', '.join(known)}" if known else "make one with `lakehouse snapshot create NAME`"
        return SnapshotError(f"no snapshot {name} in the lake {self._lake.root.address}; {hint}")


def is_snapshot_name(text: str) -> bool:
    """Say whether a snapshot may be called that."""
    return isinstance(text, str) and _NAME.fullmatch(text) is not None


def _path(name: str) -> str:
    if not is_snapshot_name(name):
        raise SnapshotError(
            f"{name!r} is not a snapshot name; use up to 64 lower-case letters, digits, _, . and -, beginning with a "
            "letter or digit and not of digits only, for example before-restatement"
        )
    return f"{_FOLDER}/{name}{_SUFFIX}"


def _written(snapshot: Snapshot) -> bytes:
    return json.dumps({"format": _FORMAT} | snapshot.as_dict(), indent=2, ensure_ascii=False).encode()


def _parsed(name: str, data: bytes) -> Snapshot:
    found = json.loads(data)
    if found["format"] != _FORMAT:
        raise ValueError(f"its format {found['format']!r} is not {_FORMAT}; a newer version of this program wrote it")
    tables = {str(table): int(version) for table, version in found["tables"].items()}
    return Snapshot(name, parse_instant(found["instant"]), tables, found["note"])
