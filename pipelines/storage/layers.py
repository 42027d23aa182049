"""Silver and gold: tables that are made from the lake's own, in a folder per layer under it. No JVM."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipelines.storage.files import file_actions
from pipelines.storage.lake import Lake
from pipelines.storage.names import LakeRoot

if TYPE_CHECKING:
    import pyarrow as pa

# Commits that leave the rows as they are.
_SAME_ROWS = (
    "OPTIMIZE", "VACUUM", "SET TBLPROPERTIES", "UNSET TBLPROPERTIES", "ADD CONSTRAINT", "DROP CONSTRAINT", "ADD COLUMN",
    "CHANGE COLUMN", "UPGRADE PROTOCOL",
)  # fmt: skip


class Layer:
    """The tables of one layer."""

    def __init__(self, root: LakeRoot, name: str) -> None:
        """Name a layer; nothing is created.

        Raises:
            StorageError: the name is not a plain one.
        """
        self._lake = Lake(LakeRoot(root.uri(name)))

    @property
    def address(self) -> str:
        """The layer's folder or object-store address."""
        return self._lake.root.address

    def names(self) -> list[str]:
        """Return the names of the tables that exist, sorted."""
        return self._lake.names()

    def spark_uri(self, table_name: str) -> str:
        """Return the address of a table as Spark takes it.

        Raises:
            StorageError: not a table name, or Spark is not set up for such a lake.
        """
        return self._lake.root.spark_uri(table_name)

    def made_by(self, table_name: str) -> str | None:
        """Return what the commit that made the table's present rows says of itself; None if it says nothing.

        Commits that only tidy up are looked through. What is gone from the log says nothing.

        Raises:
            TableNotFoundError: no such table.
        """
        for entry in self._lake.open(table_name).history():
            if not str(entry.get("operation", "")).startswith(_SAME_ROWS):
                note = entry.get("userMetadata")
                return None if note is None else str(note)
        return None

    def files(self, table_name: str) -> pa.Table:
        """Return what the log says of each live file: num_records, partition.*, min.*, max.* and more.

        Raises:
            TableNotFoundError: no such table.
        """
        return file_actions(self._lake.open(table_name))
