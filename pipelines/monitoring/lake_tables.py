"""Every table of a lake as its log tells of it, looked at again only once its log has grown. No JVM."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.errors import LakehouseError, StorageError
from pipelines.storage.files import DataFile, file_actions, live_files, store_of
from pipelines.storage.lake import Lake
from pipelines.storage.layers import LAYERS
from pipelines.storage.names import LakeRoot, lake_root
from pipelines.storage.scan import execute
from pipelines.storage.stores.objects import Listed
from pipelines.storage.travel.log_files import log_files

if TYPE_CHECKING:
    from deltalake import DeltaTable


@dataclass(frozen=True)
class LookedAt:
    """One version of a table; `name` is what a query calls it: raw_market_data_1h, gold.mart_trading_performance."""

    name: str
    root: LakeRoot
    table: DeltaTable

    @property
    def plain_name(self) -> str:
        """The name within its layer."""
        return self.name.rpartition(".")[2]

    @property
    def version(self) -> int:
        """The version."""
        return int(self.table.version())

    @cached_property
    def actions(self) -> pa.Table:
        """What the log says of each live file: path, size_bytes, num_records, partition.*, min.*, max.* and more."""
        return file_actions(self.table)

    @cached_property
    def files(self) -> list[DataFile]:
        """The live files."""
        return live_files(self.table)

    def total(self, column: str) -> int:
        """Return the sum of a column of the actions."""
        return int(pc.sum(self.actions[column]).as_py() or 0)

    def query(self, sql: str) -> pa.Table:
        """Run SQL over this version, called `source`.

        Raises:
            StorageError: a data file is missing or unreadable.
        """
        return execute(self.table, sql)

    def read_file(self, file: DataFile, columns: list[str]) -> pa.Table:
        """Read columns of one data file.

        Raises:
            StorageError: it is missing or unreadable.
        """
        try:
            return pq.read_table(file.location, columns=columns, filesystem=store_of(self.plain_name, self.root))
        except (OSError, pa.ArrowException) as error:
            raise StorageError(f"cannot read {file.location} of {self.name}: {error}") from error


class LakeTables:
    """The tables of one lake and of the layers made from it; `refresh` brings them up to date."""

    def __init__(self, storage_path: str) -> None:
        root = lake_root(storage_path)
        self._lakes = {"": Lake(root)} | {f"{layer}.": Lake(LakeRoot(root.uri(layer))) for layer in LAYERS}
        self._known: dict[str, tuple[Listed, LookedAt]] = {}
        self._tables: dict[str, LookedAt] = {}

    @property
    def all(self) -> list[LookedAt]:
        """The tables that could be opened, by name."""
        return list(self._tables.values())

    def get(self, name: str) -> LookedAt | None:
        """Return a table, None if it is not there or could not be opened."""
        return self._tables.get(name)

    def refresh(self, on_error: Callable[[str, Exception], None]) -> None:
        """Look at every table again; one that cannot be opened is told of, and left out until it can.

        Raises:
            StorageError: the lake cannot be listed.
        """
        found: dict[str, LookedAt] = {}
        for prefix, lake in self._lakes.items():
            for plain in lake.names():
                name = prefix + plain
                try:
                    table = self._look(lake, plain, name)
                except (LakehouseError, OSError) as error:
                    on_error(name, error)
                else:
                    if table is not None:
                        found[name] = table
        self._tables = found
        self._known = {name: known for name, known in self._known.items() if name in found}

    def _look(self, lake: Lake, plain: str, name: str) -> LookedAt | None:
        """Open a table unless its log ends as it did; None while its first commit is being made."""
        listed = log_files(lake.root, plain).files
        if not listed:
            return None
        # Its version alone does not tell a table from one that was made anew since.
        newest = listed[-1][1]
        known = self._known.get(name)
        if known is not None and known[0] == newest:
            return known[1]
        if not lake.exists(plain):
            return None
        table = LookedAt(name, lake.root, lake.open(plain))
        # Read now, so that a log that cannot be read is told of here.
        _ = table.actions
        self._known[name] = newest, table
        return table
