"""Silver and gold: tables that are made from the lake's own, in a folder per layer under it. No JVM."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING

from pipelines.storage.files import file_actions, rows_of
from pipelines.storage.lake import Lake
from pipelines.storage.names import LakeRoot
from pipelines.storage.scan import execute, literal, quoted

if TYPE_CHECKING:
    import pyarrow as pa

LAYERS = ("silver", "gold")
# Commits that leave the rows as they are.
_SAME_ROWS = (
    "OPTIMIZE", "VACUUM", "SET TBLPROPERTIES", "UNSET TBLPROPERTIES", "ADD CONSTRAINT", "DROP CONSTRAINT", "ADD COLUMN",
    "CHANGE COLUMN", "UPGRADE PROTOCOL",
)  # fmt: skip
_FEW = 10


@dataclass(frozen=True, slots=True)
class Made:
    """The version of a table that has its present rows (-1 if the log does not reach back), and its commit's note."""

    version: int
    note: str | None


@dataclass(frozen=True, slots=True)
class Stretch:
    """The rows of a partition from one `timestamp` on until before another, both aware UTC."""

    partition: Mapping[str, str]
    start: datetime
    end: datetime


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
        """Return the names of the tables that exist, sorted; one whose first commit was never made does not."""
        return [name for name in self._lake.names() if self._lake.exists(name)]

    def spark_uri(self, table_name: str) -> str:
        """Return the address of a table as Spark takes it.

        Raises:
            StorageError: not a table name, or Spark is not set up for such a lake.
        """
        return self._lake.root.spark_uri(table_name)

    def exists(self, table_name: str) -> bool:
        """Say whether a table exists."""
        return self._lake.exists(table_name)

    def made(self, table_name: str) -> Made:
        """Return which commit made the table's present rows, and what it says of itself.

        Commits that only tidy up are looked through. What is gone from the log says nothing.

        Raises:
            TableNotFoundError: no such table.
        """
        table = self._lake.open(table_name)
        # The newest few nearly always tell; the whole log may be long.
        for limit in (_FEW, None):
            for entry in table.history(limit):
                if not str(entry.get("operation", "")).startswith(_SAME_ROWS):
                    note = entry.get("userMetadata")
                    return Made(int(entry["version"]), None if note is None else str(note))
        return Made(-1, None)

    def rows(self, table_name: str) -> int:
        """Return how many rows the log says a table has.

        Raises:
            TableNotFoundError: no such table.
        """
        return rows_of(self.files(table_name))

    def files(self, table_name: str) -> pa.Table:
        """Return what the log says of each live file: num_records, partition.*, min.*, max.* and more.

        Raises:
            TableNotFoundError: no such table.
        """
        return file_actions(self._lake.open(table_name))

    def last_rows(self, table_name: str, stretches: Sequence[Stretch], rows: int) -> list[Stretch]:
        """Return the stretches cut down to their last `rows` rows, without those that have none.

        Args:
            table_name: a table with a `timestamp`, of which no two rows of a partition have the same.
            stretches: all by the same columns, and of each partition one at most.
            rows: how many rows are wanted of each.

        Raises:
            TableNotFoundError: no such table.
            StorageError: a data file is missing or unreadable.
        """
        if not stretches:
            return []
        names = list(stretches[0].partition)
        by = ", ".join(map(quoted, names))
        numbered = (
            f"SELECT {by}, timestamp, row_number() OVER (PARTITION BY {by} ORDER BY timestamp DESC) AS nth "  # noqa: S608
            f"FROM source WHERE {' OR '.join(map(_condition, stretches))}"
        )
        found = execute(
            self._lake.open(table_name),
            f"SELECT {by}, min(timestamp) AS start FROM ({numbered}) WHERE nth <= {int(rows)} GROUP BY {by}",  # noqa: S608
        )
        starts = {tuple(row[name] for name in names): row["start"] for row in found.to_pylist()}
        keys = (tuple(each.partition[name] for name in names) for each in stretches)
        return [replace(each, start=starts[key]) for each, key in zip(stretches, keys, strict=True) if key in starts]


def _condition(stretch: Stretch) -> str:
    named = " AND ".join(f"{quoted(name)} = {literal(value)}" for name, value in stretch.partition.items())
    return f"({named} AND timestamp >= {literal(stretch.start)} AND timestamp < {literal(stretch.end)})"
