"""Opens the tables of one lake with delta-rs: no JVM."""

from __future__ import annotations

import pyarrow.fs as pafs
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError
from deltalake.fs import DeltaStorageHandler

from pipelines.errors import StorageError
from pipelines.storage.names import LakeRoot, is_table_name, table_missing
from pipelines.storage.stores.s3 import folders, has_objects
from pipelines.storage.travel.log_files import log_files


class Lake:
    """The tables under one root."""

    def __init__(self, root: LakeRoot) -> None:
        self.root = root

    def names(self) -> list[str]:
        """Return the names of the tables that exist, sorted."""
        if self.root.is_local:
            if not self.root.path.is_dir():
                return []
            found = (place.name for place in self.root.path.iterdir() if (place / "_delta_log").is_dir())
            return sorted(filter(is_table_name, found))
        return sorted(name for name in self._folders() if is_table_name(name) and self.exists(name))

    def exists(self, table_name: str) -> bool:
        """Say whether a table exists."""
        uri = self.root.uri(table_name)
        if self.root.is_local and not (self.root.path / table_name / "_delta_log").is_dir():
            return False
        if self.root.is_s3:
            # delta-rs holds the interpreter's lock while it waits for this, and does not say which bucket is missing.
            return has_objects(self.root.place, f"{table_name}/_delta_log/")
        return bool(DeltaTable.is_deltatable(uri, self.root.options()))

    def open(self, table_name: str, version: int | None = None) -> DeltaTable:
        """Open a table at its newest or a given version.

        Raises:
            TableNotFoundError: there is no such table.
            StorageError: the version does not exist or the log cannot be read.
        """
        uri = self.root.uri(table_name)
        if self.root.is_local and not (self.root.path / table_name / "_delta_log").is_dir():
            raise table_missing(table_name, self.names(), self.root)
        if version is not None:
            self._check_version(table_name, version)
        try:
            return DeltaTable(uri, version=version, storage_options=self.root.options())
        except TableNotFoundError:
            raise table_missing(table_name, self.names(), self.root) from None
        except (DeltaError, OSError) as error:
            raise StorageError(f"cannot read the log of {table_name} at {uri}: {error}") from error

    def _check_version(self, table_name: str, version: int) -> None:
        """Make sure that the log leads up to a version: delta-rs may read one from whose log the beginning is gone."""
        present = self.versions(table_name)
        if not present:
            raise table_missing(table_name, self.names(), self.root)
        if version not in present:
            known = f"versions {present.start} to {present.stop - 1}" if len(present) > 1 else f"{present.start} only"
            raise StorageError(f"{table_name} has no version {version}; it has {known}")

    def _folders(self) -> list[str]:
        """Return the names right under an object store's prefix that have something under them."""
        if self.root.is_s3:
            return folders(self.root.place)
        try:
            store = pafs.PyFileSystem(DeltaStorageHandler(self.root.address, self.root.options()))
            found = store.get_file_info(pafs.FileSelector("", allow_not_found=True, recursive=False))
        except (DeltaError, OSError) as error:
            raise StorageError(f"cannot list the lake {self.root.address}: {error}") from error
        return [info.path for info in found if info.type == pafs.FileType.Directory]

    def versions(self, table_name: str) -> range:
        """Return the versions that can be read: without a gap, the newest last; empty if there is no such table.

        Raises:
            StorageError: not a table name, or the log cannot be listed.
        """
        return log_files(self.root, table_name).readable()
