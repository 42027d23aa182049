"""Opens the tables of one lake with delta-rs: no JVM."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError

from pipelines.errors import StorageError
from pipelines.storage.names import LakeRoot, table_missing

if TYPE_CHECKING:
    from collections.abc import Sequence


class Lake:
    """The tables under one root."""

    def __init__(self, root: LakeRoot) -> None:
        self.root = root
        self._object_store_names: set[str] = set()
        self._guard = threading.Lock()

    def names(self) -> list[str]:
        """Return the names of the tables that exist, sorted."""
        if self.root.is_local:
            if not self.root.path.is_dir():
                return []
            return sorted(p.name for p in self.root.path.iterdir() if (p / "_delta_log").is_dir())
        return sorted(name for name in _declared() if self.exists(name))

    def exists(self, table_name: str) -> bool:
        """Say whether a table exists."""
        uri = self.root.uri(table_name)
        if self.root.is_local and not (self.root.path / table_name / "_delta_log").is_dir():
            return False
        return bool(DeltaTable.is_deltatable(uri, self.root.options()))

    def open(self, table_name: str, version: int | None = None) -> DeltaTable:
        """Open a table at its newest or a given version.

        Raises:
            TableNotFoundError: there is no such table.
            StorageError: the version does not exist or the log cannot be read.
        """
        uri = self.root.uri(table_name)
        try:
            if self.root.is_local and not (self.root.path / table_name / "_delta_log").is_dir():
                raise table_missing(table_name, self.names(), self.root)
            return DeltaTable(uri, version=version, storage_options=self.root.options())
        except TableNotFoundError:
            raise table_missing(table_name, self.names(), self.root) from None
        except (DeltaError, OSError) as error:
            if version is not None:
                raise self._no_version(table_name, version) from error
            raise StorageError(f"cannot read the log of {table_name} at {uri}: {error}") from error

    def _no_version(self, table_name: str, version: int) -> StorageError:
        newest = self.open(table_name).version()
        return StorageError(f"{table_name} has no version {version}; it has versions up to {newest}")


def _declared() -> Sequence[str]:
    from pipelines.contracts import load_contracts  # noqa: PLC0415 - only an object store needs it, to ask for each

    return [table for contract in load_contracts().values() for table in contract.tables]
