"""Merges into tables that are not append-only: rows change in place, in the partitions that the rows touch."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

import polars as pl
import pyarrow as pa

from pipelines.contracts import PARTITION_DATE, PARTITION_PREFIX
from pipelines.errors import ConcurrentWriteError, ContractError
from pipelines.storage.creation import GRANULARITY, property_of
from pipelines.storage.files import partition_columns
from pipelines.storage.partitions import partition_dates
from pipelines.storage.scan import MANY_VALUES, physical_schema
from pipelines.storage.stores.locks import turn
from pipelines.storage.writing.dedupe import ROW, last_of_each

if TYPE_CHECKING:
    from deltalake import DeltaTable

    from pipelines.storage.engines import Engine
    from pipelines.storage.lake import Lake

_TIME = "timestamp"


@dataclass(frozen=True, slots=True)
class Bound:
    """Where the rows to merge lie in one column: these values, or from the first to the last of them."""

    column: str
    values: tuple[str | int | date | datetime, ...]
    is_range: bool


@dataclass(frozen=True, slots=True)
class Change:
    """Rows to merge in the table's types, one per key; `bounds` keep what they cannot touch from being read."""

    rows: pa.Table
    keys: tuple[str, ...]
    updates: tuple[str, ...]
    bounds: tuple[Bound, ...]


@dataclass(frozen=True, slots=True)
class Changed:
    """What a merge did; `version` is the table's version after it."""

    version: int
    updated: int
    inserted: int
    unchanged: int
    duplicates: int


def update(
    lake: Lake,
    engine: Engine,
    retries: int,
    rows: pa.Table,
    table: DeltaTable,
    table_name: str,
    merge_keys: Sequence[str],
    update_columns: Sequence[str] | None,
) -> Changed:
    """Update known rows in place and insert new ones; doing it again changes nothing.

    Args:
        lake: the lake.
        engine: merges.
        retries: how often a lost race is run again.
        rows: of several rows with one key the last counts; a column that new rows lack is null.
        table: just opened.
        table_name: its name; it is not append-only.
        merge_keys: what identifies a row.
        update_columns: what to change of a known row; by default all columns given but the keys.

    Raises:
        ContractError: unknown columns or types, or merge keys that are missing or null.
        ConcurrentWriteError: other writers were faster on every attempt.
        StorageError: it could not be merged, as when new rows lack a required column; nothing was committed.
    """
    with turn(lake.root, table_name):
        for attempt in range(retries + 1):
            # Cheaper than opening it again.
            table.update_incremental()
            change = _change(table, table_name, rows, merge_keys, update_columns)
            done = engine.merge(table, table_name, change)
            if done is not None:
                kept = change.rows.num_rows
                unchanged = kept - done.updated - done.inserted
                return Changed(done.version, done.updated, done.inserted, unchanged, rows.num_rows - kept)
            time.sleep(0.05 * (attempt + 1) * random.random())  # noqa: S311 - no secret
    raise ConcurrentWriteError(f"other writers of {table_name} committed first {retries + 1} times; run it again")


def _change(
    table: DeltaTable,
    table_name: str,
    rows: pa.Table,
    merge_keys: Sequence[str],
    update_columns: Sequence[str] | None,
) -> Change:
    schema, given = physical_schema(table), rows.column_names
    _check_names(table_name, schema.names, given, merge_keys, update_columns)
    typed = _typed(rows, schema, table_name)
    for name in merge_keys:
        if nulls := typed[name].null_count:
            raise ContractError(f"{nulls} of {typed.num_rows} rows have no {name}, which they are merged by")
    complete, tied = _partitioned(table, typed, merge_keys)
    frame = pl.DataFrame(complete.select([*merge_keys, *tied]))
    last = last_of_each(frame, merge_keys)
    if last.height < frame.height:
        complete = complete.take(pa.array(last[ROW].to_numpy()))
    partitions = partition_columns(table)
    wanted = given if update_columns is None else update_columns
    updates = tuple(name for name in wanted if name not in merge_keys and name not in partitions)
    bounds = [found for name in frame.columns if (found := _bound(frame[name])) is not None]
    return Change(complete, (*merge_keys, *tied), updates, tuple(bounds))


def _check_names(
    table_name: str,
    present: Sequence[str],
    given: Sequence[str],
    merge_keys: Sequence[str],
    update_columns: Sequence[str] | None,
) -> None:
    unknown = [name for name in given if name not in present]
    if unknown:
        raise ContractError(f"{table_name} has no column {', '.join(unknown)}; it has {', '.join(present)}")
    if not merge_keys:
        raise ContractError("no merge keys; name the columns that identify a row")
    lacking = [name for name in (*merge_keys, *(update_columns or ())) if name not in given]
    if lacking:
        raise ContractError(f"the rows lack {', '.join(lacking)}; they have {', '.join(given)}")
    both = [name for name in update_columns or () if name in merge_keys]
    if both:
        raise ContractError(f"{', '.join(both)} says which row it is and cannot be updated")


def _typed(rows: pa.Table, schema: pa.Schema, table_name: str) -> pa.Table:
    columns = {}
    for name in rows.column_names:
        values, kind = rows[name], schema.field(name).type
        if pa.types.is_timestamp(kind) and pa.types.is_string(values.type):
            # ISO text; zoneless is UTC, as everywhere.
            values = pl.Series(values).str.to_datetime(time_unit="us", time_zone="UTC", strict=False).to_arrow()
            if values.null_count > rows[name].null_count:
                raise ContractError(f"{name} has values that are no ISO times")
        try:
            columns[name] = values.cast(kind)
        except pa.ArrowException as error:
            raise ContractError(f"{name} of {table_name} is {kind}, and the rows have {values.type}: {error}") from None
    return pa.table(columns)


def _partitioned(table: DeltaTable, rows: pa.Table, merge_keys: Sequence[str]) -> tuple[pa.Table, list[str]]:
    """Add partition columns that follow from the keys, and name those that do: they identify a row as the keys do."""
    tied = []
    granularity = property_of(table, GRANULARITY)
    for name in partition_columns(table):
        source = _TIME if name == PARTITION_DATE else name.removeprefix(PARTITION_PREFIX)
        follows = source != name and source in merge_keys
        if name not in rows.column_names:
            if not follows or (name == PARTITION_DATE and granularity is None):
                raise ContractError(f"the rows lack {name}, which the table is partitioned by")
            dated = name == PARTITION_DATE
            rows = rows.append_column(name, partition_dates(rows[source], granularity) if dated else rows[source])
        if follows and name not in merge_keys:
            tied.append(name)
    return rows, tied


def _bound(values: pl.Series) -> Bound | None:
    zoneless = isinstance(values.dtype, pl.Datetime) and values.dtype.time_zone is None
    if zoneless or not (isinstance(values.dtype, pl.String | pl.Date | pl.Datetime) or values.dtype.is_integer()):
        return None
    distinct = values.unique().sort()
    if distinct.len() > MANY_VALUES:
        ends: list[Any] = [distinct[0], distinct[-1]]
        return Bound(values.name, tuple(ends), is_range=True)
    return Bound(values.name, tuple(distinct), is_range=False)
