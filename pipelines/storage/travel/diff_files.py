"""Which data files two views of a table share and which they do not, partition by partition, and their rows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from pipelines.errors import StorageError
from pipelines.storage.files import STATISTICS_STEP, file_actions, store_of
from pipelines.storage.scan import INGESTED_AT, View, physical_schema

if TYPE_CHECKING:
    from pipelines.storage.lake import Lake

_PARTITION = "partition."
_NEWEST = f"max.{INGESTED_AT}"
# What would have to be applied to a file's rows.
_NOT_PLAIN = {"deletionVectors", "columnMapping"}


@dataclass(frozen=True, slots=True)
class ComparedFile:
    """A data file with the values of its partition; of its rows count those ingested by `cut`, or all."""

    path: str
    partition: tuple[tuple[str, object], ...]
    cut: datetime | None


@dataclass(slots=True)
class Group:
    """The files of some partitions: only in the old view, only in the new one, and in both."""

    old: list[ComparedFile] = field(default_factory=list)
    new: list[ComparedFile] = field(default_factory=list)
    shared: list[ComparedFile] = field(default_factory=list)


class Pair:
    """Two views of one table."""

    def __init__(self, lake: Lake, table_name: str, old: View, new: View) -> None:
        """Look at both logs; no data is read yet.

        Raises:
            StorageError: the files cannot be read as they are, or a column has changed its type in between.
        """
        for view in (old, new):
            _check_plain(view.table, table_name)
        self._old, self._new = _files(old), _files(new)
        self._store = store_of(table_name, lake.root)
        self.schema = _joined(physical_schema(old.table), physical_schema(new.table), table_name)
        partitions = [view.table.metadata().partition_columns for view in (old, new)]
        self.partitions = tuple(partitions[0]) if partitions[0] == partitions[1] else ()

    def groups(self, by: Sequence[str]) -> Iterator[Group]:
        """Yield the files, grouped by the values of partition columns and in their order, where the views differ."""
        found: dict[tuple[object, ...], Group] = defaultdict(Group)
        for file in self._old | self._new:
            values = dict(file.partition)
            group = found[tuple(values[name] for name in by)]
            place = group.shared if file in self._old and file in self._new else None
            (group.old if file in self._old else group.new).append(file) if place is None else place.append(file)
        for _, group in sorted(found.items(), key=lambda item: [(value is not None, str(value)) for value in item[0]]):
            if group.old or group.new:
                yield group

    def rows(self, files: Sequence[ComparedFile], where: ds.Expression | None = None) -> pl.DataFrame:
        """Return the rows of files, with all columns that either view has.

        Raises:
            StorageError: a file is missing, probably vacuumed, or unreadable.
        """
        parts = [
            self._read([file for file in files if file.cut == cut], _both(where, cut))
            for cut in dict.fromkeys(file.cut for file in files)
        ]
        table = pa.concat_tables(parts) if parts else self.schema.empty_table()
        return pl.DataFrame(table)

    def _read(self, files: Sequence[ComparedFile], where: ds.Expression | None) -> pa.Table:
        form = ds.ParquetFileFormat()
        fragments = [
            form.make_fragment(file.path, filesystem=self._store, partition_expression=self._values(file))
            for file in files
        ]
        try:
            return ds.FileSystemDataset(fragments, self.schema, form, self._store).to_table(filter=where)
        except (DeltaError, OSError, pa.ArrowException) as error:
            raise StorageError(
                f"cannot read the files of a version, which a vacuum may have removed: {error}"
            ) from error

    def _values(self, file: ComparedFile) -> ds.Expression:
        """Return what a file's path says of its rows: the partition columns are not in it."""
        known = ds.scalar(value=True)
        for name, value in file.partition:
            column = ds.field(name)
            typed = pa.scalar(value, self.schema.field(name).type)
            known &= column.is_null() if value is None else column == typed
        return known


def _files(view: View) -> dict[ComparedFile, None]:
    """Return a version's files; one that the view cuts is another file than the whole one."""
    actions = file_actions(view.table)
    names = [name for name in actions.column_names if name.startswith(_PARTITION)]
    found = (
        ComparedFile(
            # The log spells paths as URLs.
            unquote(row["path"]),
            tuple((name.removeprefix(_PARTITION), row[name]) for name in names),
            view.ingested_by if _reaches_over(row, view.ingested_by) else None,
        )
        for row in actions.to_pylist()
    )
    return dict.fromkeys(found)


def _reaches_over(row: Mapping[str, Any], cut: datetime | None) -> bool:
    newest = row.get(_NEWEST)
    return cut is not None and (newest is None or newest + STATISTICS_STEP > cut)


def _both(where: ds.Expression | None, cut: datetime | None) -> ds.Expression | None:
    if cut is None:
        return where
    known = ds.field(INGESTED_AT) <= pa.scalar(cut, pa.timestamp("us", "UTC"))
    return known if where is None else where & known


def _check_plain(table: DeltaTable, table_name: str) -> None:
    hindering = _NOT_PLAIN.intersection(table.protocol().reader_features or ())
    if hindering:
        raise StorageError(
            f"{table_name} uses {', '.join(sorted(hindering))}, with which its files cannot be compared; "
            "compare queries of the two versions instead"
        )


def _joined(old: pa.Schema, new: pa.Schema, table_name: str) -> pa.Schema:
    try:
        plain = [pa.schema([pa.field(each.name, each.type) for each in schema]) for schema in (new, old)]
        return pa.unify_schemas(plain)
    except (pa.ArrowException, TypeError) as error:
        raise StorageError(f"a column of {table_name} has another type in the other version: {error}") from error
