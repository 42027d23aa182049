"""Rewrites small files of a table as few large ones, in this process; the rows stay what they are."""

from __future__ import annotations

import os
import random
import time
import uuid
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import CommitProperties
from deltalake.exceptions import CommitFailedError, DeltaError
from deltalake.transaction import AddAction, RemoveAction

from pipelines.errors import ConcurrentWriteError, StorageError
from pipelines.storage.creation import CODEC, property_of
from pipelines.storage.delta_rs import KEEP_LOG, landed_version
from pipelines.storage.faults import explain
from pipelines.storage.files import DataFile, Partition, live_files, partition_columns, store_of
from pipelines.storage.results import Rewritten
from pipelines.storage.scan import physical_schema
from pipelines.storage.stores.locks import turn
from pipelines.storage.upkeep.file_statistics import indexed_columns, statistics
from pipelines.storage.upkeep.zorder import zordered

if TYPE_CHECKING:
    import pyarrow.fs as pafs
    from deltalake import DeltaTable

    from pipelines.storage.lake import Lake

# Small enough that a reader of an hour in a large file skips most of it.
_ROW_GROUP = 1 << 17
_ATTEMPTS = 20


@dataclass(frozen=True, slots=True)
class Layout:
    """How files are to be: about `target_bytes` each, rows ordered by `order`; `rewrite_all` even single files.

    `sparing` leaves a file alone that is larger than all smaller ones of its partition together: so a row is rewritten
    only a few times, however often that is done while files come, and there are a few files more.
    """

    target_bytes: int
    order: tuple[str, ...]
    rewrite_all: bool = False
    sparing: bool = False


@dataclass(frozen=True, slots=True)
class _Rewrite:
    """A group of old files of one partition and the file that takes their place."""

    old: tuple[DataFile, ...]
    new: AddAction


def compact(
    lake: Lake,
    table_name: str,
    chosen: frozenset[Partition] | None,
    layout: Layout,
    *,
    beside_writers: bool = False,
) -> Rewritten:
    """Rewrite the small files of the chosen partitions (None: all) and commit once.

    Files of one partition are grouped up to the target size, and a group is held in memory; an ordered rewrite takes
    a partition as one group. Rows that others append meanwhile stay. The caller has the table's turn, unless it is done
    beside writers: then it is taken for the commit alone, and they go on while files are rewritten.

    Raises:
        ConcurrentWriteError: others removed some of the files meanwhile.
        StorageError: a file is missing or damaged, or could not be written; nothing was committed.
    """
    table = lake.open(table_name)
    groups = list(_groups(live_files(table), chosen, layout))
    if not groups:
        return Rewritten(table.version())
    store = store_of(table_name, lake.root)
    rewriter = _Rewriter(table, store, layout)
    done: list[_Rewrite] = []
    try:
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            done.extend(pool.map(rewriter.rewrite, groups))
        with turn(lake.root, table_name) if beside_writers else nullcontext():
            version = _commit(lake, table_name, table, done)
    except (OSError, pa.ArrowException, pl.exceptions.PolarsError) as error:
        raise StorageError(explain(error, f"cannot compact {table_name}")) from error
    old = [file for each in done for file in each.old]
    return Rewritten(
        version=version,
        partitions=len({each.old[0].partition for each in done}),
        files_added=len(done),
        files_removed=len(old),
        bytes_added=sum(each.new.size for each in done),
        bytes_removed=sum(file.size for file in old),
    )


def _groups(
    files: Sequence[DataFile], chosen: frozenset[Partition] | None, layout: Layout
) -> Iterator[tuple[DataFile, ...]]:
    by_partition: dict[Partition, list[DataFile]] = defaultdict(list)
    for file in files:
        if chosen is None or file.partition in chosen:
            by_partition[file.partition].append(file)
    for members in by_partition.values():
        yield from ([tuple(members)] if layout.rewrite_all else _binned(members, layout))


def _binned(files: list[DataFile], layout: Layout) -> Iterator[tuple[DataFile, ...]]:
    """Yield groups of at least two files below the target size, each about as large as the target."""
    target = layout.target_bytes
    small = sorted((file for file in files if file.size < target), key=lambda file: (file.size, file.path))
    group: list[DataFile] = []
    filled = 0
    for file in _worth_it(small) if layout.sparing else small:
        if filled + file.size > target and len(group) > 1:
            yield tuple(group)
            group, filled = [], 0
        group.append(file)
        filled += file.size
    if len(group) > 1:
        yield tuple(group)


def _worth_it(files: Sequence[DataFile]) -> Sequence[DataFile]:
    """Return files, smallest first, up to the last that is not larger than all before it together."""
    below = accumulate((file.size for file in files), initial=0)
    fits = [number for number, (file, before) in enumerate(zip(files, below, strict=False)) if file.size <= before]
    return files[: fits[-1] + 1] if fits else ()


class _Rewriter:
    """Reads groups of files of one table version and writes their rows anew."""

    def __init__(self, table: DeltaTable, store: pafs.FileSystem, layout: Layout) -> None:
        self._store = store
        self._order = list(layout.order)
        self._columns = partition_columns(table)
        fields = [field for field in physical_schema(table) if field.name not in self._columns]
        self._schema = pa.schema(fields)
        self._indexed = indexed_columns(table)
        self._codec = property_of(table, CODEC) or "zstd"

    def rewrite(self, files: tuple[DataFile, ...]) -> _Rewrite:
        """Write one file with the rows of several."""
        rows = self._read(files)
        known = [file.rows for file in files]
        expected = sum(count for count in known if count is not None)
        if None not in known and rows.height != expected:
            raise StorageError(
                f"{files[0].path} and its neighbours hold {rows.height} rows and the log says {expected}; "
                "`lakehouse fsck --deep` tells more"
            )
        if self._order:
            rows = zordered(rows, self._order)
        folder = files[0].path.rpartition("/")[0]
        name = f"part-00000-{uuid.uuid4()}-c000.{self._codec}.parquet"
        new = DataFile(f"{folder}/{name}" if folder else name, 0, rows.height, files[0].partition)
        size = self._write(new.location, rows.to_arrow().cast(self._schema))
        action = AddAction(
            # delta-rs encodes it for the log, here and in a removal.
            path=new.location,
            size=size,
            partition_values=dict(zip(self._columns, new.partition, strict=True)),
            modification_time=int(time.time() * 1000),
            data_change=False,
            stats=statistics(rows, self._indexed),
        )
        return _Rewrite(files, action)

    def _read(self, files: Sequence[DataFile]) -> pl.DataFrame:
        try:
            return self._typed(pl.read_parquet([self._bytes(file) for file in files]))
        except (pl.exceptions.SchemaError, pl.exceptions.ColumnNotFoundError):
            # Files of different writers or contract versions: each is brought to the table's types by itself.
            return pl.concat([self._read_one(file) for file in files])

    def _read_one(self, file: DataFile) -> pl.DataFrame:
        return self._typed(pl.read_parquet(self._bytes(file)))

    def _bytes(self, file: DataFile) -> bytes:
        with self._store.open_input_stream(file.location) as stream:
            found: bytes = stream.read()
        return found

    def _typed(self, rows: pl.DataFrame) -> pl.DataFrame:
        wanted = pl.DataFrame(self._schema.empty_table()).schema
        if rows.schema == wanted:
            return rows
        return rows.select(
            (_as(pl.col(name), rows.schema[name], kind) if name in rows.columns else pl.lit(None, kind)).alias(name)
            for name, kind in wanted.items()
        )

    def _write(self, location: str, rows: pa.Table) -> int:
        sink = pa.BufferOutputStream()
        pq.write_table(rows, sink, compression=self._codec, row_group_size=_ROW_GROUP)
        data = sink.getvalue()
        with self._store.open_output_stream(location) as stream:
            stream.write(data)
        return len(data)


def _as(column: pl.Expr, found: pl.DataType, wanted: pl.DataType) -> pl.Expr:
    if isinstance(found, pl.Datetime) and isinstance(wanted, pl.Datetime):
        zoned = column if found.time_zone else column.dt.replace_time_zone("UTC")
        return zoned.dt.cast_time_unit(wanted.time_unit).dt.convert_time_zone(wanted.time_zone or "UTC")
    return column.cast(wanted)


def _commit(lake: Lake, table_name: str, table: DeltaTable, rewrites: Sequence[_Rewrite]) -> int:
    """Exchange old files for new ones upon a version that still has all of the old ones."""
    tag = uuid.uuid4().hex
    removed = [file for each in rewrites for file in each.old]
    actions = [each.new for each in rewrites] + [_removal(file, partition_columns(table)) for file in removed]
    schema = table.schema()
    for attempt in range(_ATTEMPTS):
        seen = table.version()
        failure: Exception | None = None
        try:
            table.create_write_transaction(
                actions,
                mode="append",
                schema=schema,
                partition_by=partition_columns(table) or None,
                # delta-rs would not notice that another compaction took a file away: only the next version will do.
                commit_properties=CommitProperties(
                    custom_metadata={"userMetadata": tag, "lakehouse.operation": "OPTIMIZE"}, max_commit_retries=0
                ),
                post_commithook_properties=KEEP_LOG,
            )
        except (DeltaError, OSError) as error:
            failure = error
            time.sleep(0.02 * (attempt + 1) * random.random())  # noqa: S311 - no secret
        table = lake.open(table_name)
        landed = landed_version(table, tag, seen)
        if landed is not None:
            return landed
        if failure is not None and not isinstance(failure, CommitFailedError):
            raise StorageError(explain(failure, f"cannot compact {table_name}")) from failure
        _check_still(table, table_name, removed, schema)
    raise ConcurrentWriteError(f"writers of {table_name} were faster {_ATTEMPTS} times; compact it in a quieter hour")


def _removal(file: DataFile, columns: Sequence[str]) -> RemoveAction:
    return RemoveAction(
        path=file.location,
        data_change=False,
        deletion_timestamp=int(time.time() * 1000),
        size=file.size,
        partition_values=dict(zip(columns, file.partition, strict=True)),
    )


def _check_still(table: DeltaTable, table_name: str, removed: Sequence[DataFile], schema: object) -> None:
    gone = {file.path for file in removed} - {file.path for file in live_files(table)}
    if gone or table.schema() != schema:
        raise ConcurrentWriteError(f"cannot compact {table_name}: another writer changed the same files; run it again")
