"""The live data files of one table version: as the log has them, and where they lie."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.fs as pafs

if TYPE_CHECKING:
    from deltalake import DeltaTable

    from pipelines.storage.names import LakeRoot

# File statistics of Spark and delta-rs are cut off to the millisecond.
STATISTICS_STEP = timedelta(milliseconds=1)
# Values of the partition columns, in their order, as the log spells them.
Partition = tuple[str | None, ...]


@dataclass(frozen=True, slots=True)
class DataFile:
    """One live file: `path` as in the log (URL-encoded, relative to the table), its size in bytes, its rows."""

    path: str
    size: int
    rows: int | None
    partition: Partition

    @property
    def location(self) -> str:
        """The path in the store, relative to the table."""
        return unquote(self.path)


def live_files(table: DeltaTable) -> list[DataFile]:
    """Return the files of the opened version, from the log alone, in no particular order."""
    actions = file_actions(table)
    columns = partition_columns(table)
    values = [actions[f"partition.{name}"].cast(pa.string()).to_pylist() for name in columns]
    partitions: list[Partition] = list(zip(*values, strict=True)) if columns else [()] * actions.num_rows
    known = [actions[name].to_pylist() for name in ("path", "size_bytes", "num_records")]
    return [
        DataFile(path, size, rows, partition) for path, size, rows, partition in zip(*known, partitions, strict=True)
    ]


def file_actions(table: DeltaTable) -> pa.Table:
    """Return what the log says of each live file: path, size_bytes, num_records, partition.*, min.*, max.* and more."""
    return pa.RecordBatchReader.from_stream(table.get_add_actions(flatten=True)).read_all()


def rows_of(actions: pa.Table) -> int:
    """Return how many rows the log says some files have; those it tells nothing of count as none."""
    return sum(rows or 0 for rows in actions["num_records"].to_pylist())


def partition_columns(table: DeltaTable) -> list[str]:
    """Return the names of the partition columns, in their order."""
    return list(table.metadata().partition_columns)


def store_of(table_name: str, root: LakeRoot) -> pafs.FileSystem:
    """Return the table's folder as a file system."""
    return _store(str(root.path / table_name) if root.is_local else root.uri(table_name), root)


def whole_store(root: LakeRoot) -> pafs.FileSystem:
    """Return the lake's folder, with all that is beside its tables, as a file system."""
    return _store(root.address, root)


def _store(address: str, root: LakeRoot) -> pafs.FileSystem:
    if root.is_local:
        return pafs.SubTreeFileSystem(address, pafs.LocalFileSystem())
    from pipelines.storage.stores.object_store import ObjectStoreHandler  # noqa: PLC0415 - only for object stores

    return pafs.PyFileSystem(ObjectStoreHandler(address, root.options()))
