"""Reads rows of one table version with delta-rs and DataFusion: filters skip partitions, files and row groups."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING

import pyarrow as pa
from deltalake import DeltaTable, QueryBuilder
from deltalake.exceptions import DeltaError

from pipelines.contracts import PARTITION_DATE, PARTITION_PREFIX
from pipelines.errors import InvalidRangeError, StorageError
from pipelines.storage.partitions import cut
from pipelines.timeframes import parse_instant

if TYPE_CHECKING:
    from pipelines.contracts import Contract

Instant = str | date | datetime
INGESTED_AT = "ingested_at"
# More of them in a condition cost more than they skip.
MANY_VALUES = 1000


@dataclass(frozen=True, slots=True)
class View:
    """A table at a version; with `ingested_by` (aware UTC), only its rows ingested at or before that instant."""

    table: DeltaTable
    ingested_by: datetime | None = None

    def condition(self) -> str | None:
        """Return what rows have to meet, as SQL; None if all count."""
        if self.ingested_by is None:
            return None
        return f"{quoted(INGESTED_AT)} <= {literal(self.ingested_by)}"


@dataclass(frozen=True, slots=True)
class Selection:
    """Which rows and columns: event time in [start, end), some assets; None means all."""

    start: datetime | None = None
    end: datetime | None = None
    assets: tuple[str, ...] | None = None
    columns: tuple[str, ...] | None = None


def selection(
    start: Instant | None, end: Instant | None, assets: Sequence[str] | str | None, columns: Sequence[str] | None
) -> Selection:
    """Return a selection from what a user gives.

    Raises:
        InvalidRangeError: a bound is not a time, or end is before start.
    """
    begin = None if start is None else parse_instant(start)
    finish = None if end is None else parse_instant(end)
    if begin is not None and finish is not None and finish < begin:
        raise InvalidRangeError(f"inverted range: start {begin.isoformat()} is after end {finish.isoformat()}")
    pairs = (assets,) if isinstance(assets, str) else assets
    return Selection(
        begin, finish, None if pairs is None else tuple(pairs), None if columns is None else tuple(columns)
    )


def read(view: View, contract: Contract, wanted: Selection, granularity: str | None) -> pa.Table:
    """Return the selected rows in the contract's types, in no particular order.

    Raises:
        StorageError: a column does not exist, or the table has no event time or assets to select by.
    """
    schema = physical_schema(view.table)
    names = checked_columns(schema.names, wanted.columns, contract.id)
    where = conditions(contract, schema.names, wanted, granularity)
    if known := view.condition():
        where.append(known)
    sql = f"SELECT {', '.join(map(quoted, names))} FROM source"  # noqa: S608 - names are checked, values are literals
    rows = execute(view.table, sql + (f" WHERE {' AND '.join(where)}" if where else ""))
    return rows.cast(pa.schema([schema.field(name) for name in names]))


def execute(table: DeltaTable, sql: str) -> pa.Table:
    """Run SQL over one table, called `source`.

    Raises:
        StorageError: a data file is missing or unreadable.
    """
    try:
        stream = QueryBuilder().register("source", table).execute(sql)
        # Not pa.table(): that imports pandas, which costs a second.
        return pa.RecordBatchReader.from_stream(stream).read_all()
    except (DeltaError, OSError, pa.ArrowException) as error:
        raise StorageError(f"cannot read {table.table_uri}: {error}") from error


def physical_schema(table: DeltaTable) -> pa.Schema:
    """Return the table's schema as pyarrow sees it."""
    return pa.schema(table.schema().to_arrow())


def conditions(contract: Contract, present: Sequence[str], wanted: Selection, granularity: str | None) -> list[str]:
    """Return SQL conditions for a selection; conditions on partition columns come with those on their sources.

    Raises:
        StorageError: the table has no event time or no assets to select by.
    """
    found: list[str] = []
    if wanted.start is not None or wanted.end is not None:
        found += _time_conditions(contract, present, wanted, granularity)
    if wanted.assets is not None:
        if "asset_pair" not in present:
            raise StorageError(f"{contract.id} has no asset_pair to select assets by")
        listed = ", ".join(map(literal, wanted.assets)) or "NULL"
        found += [f"{quoted(c)} IN ({listed})" for c in (PARTITION_PREFIX + "asset_pair", "asset_pair") if c in present]
    return found


def _time_conditions(
    contract: Contract, present: Sequence[str], wanted: Selection, granularity: str | None
) -> list[str]:
    if contract.event_time is None:
        raise StorageError(f"{contract.id} has no event time to select by; read it without start and end")
    time, found = quoted(contract.event_time), []
    dated = PARTITION_DATE in present and granularity is not None
    if wanted.start is not None:
        found.append(f"{time} >= {literal(wanted.start)}")
        if dated and granularity:
            found.append(f"{PARTITION_DATE} >= {literal(cut(wanted.start, granularity))}")
    if wanted.end is not None:
        found.append(f"{time} < {literal(wanted.end)}")
        if dated and granularity:
            found.append(f"{PARTITION_DATE} <= {literal(cut(wanted.end, granularity))}")
    return found


def checked_columns(present: Sequence[str], columns: Sequence[str] | None, where: str) -> list[str]:
    """Return the columns to read.

    Raises:
        StorageError: one does not exist; names the nearest.
    """
    if columns is None:
        return list(present)
    for name in columns:
        if name not in present:
            close = difflib.get_close_matches(str(name), present, n=2)
            hint = f"did you mean {' or '.join(close)}?" if close else f"it has {', '.join(present)}"
            raise StorageError(f"{where} has no column {name!r}; {hint}")
    return list(columns)


def among(name: str, values: Sequence[str] | Sequence[date]) -> str:
    """Return a condition with literal values that files are skipped by.

    Args:
        name: a column.
        values: sorted; over a thousand of them become a range.
    """
    if len(values) <= MANY_VALUES:
        return f"{quoted(name)} IN ({', '.join(map(literal, values))})"
    return f"{quoted(name)} BETWEEN {literal(values[0])} AND {literal(values[-1])}"


def quoted(name: str) -> str:
    """Return a name quoted for SQL."""
    return '"' + name.replace('"', '""') + '"'


def literal(value: str | int | date | datetime) -> str:
    """Return a value as a SQL literal."""
    if isinstance(value, int):
        return str(int(value))
    if isinstance(value, datetime):
        return f"arrow_cast('{value.isoformat()}', 'Timestamp(Microsecond, Some(\"UTC\"))')"
    if isinstance(value, date):
        return f"DATE '{value.isoformat()}'"
    return "'" + value.replace("'", "''") + "'"
