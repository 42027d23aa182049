"""File statistics as Delta keeps them: rows, and for some columns the smallest and greatest value and the nulls."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

import polars as pl

from pipelines.storage.creation import property_of

if TYPE_CHECKING:
    from deltalake import DeltaTable

_COLUMNS = "delta.dataSkippingStatsColumns"
# What Delta indexes where a table does not say.
_FIRST_COLUMNS = 32
_MILLISECOND = timedelta(milliseconds=1)


def indexed_columns(table: DeltaTable) -> list[str]:
    """Return the columns that files are skipped by."""
    names = [field.name for field in table.schema().fields]
    given = property_of(table, _COLUMNS)
    return [name for name in given.split(",") if name in names] if given else names[:_FIRST_COLUMNS]


def statistics(rows: pl.DataFrame, columns: Sequence[str]) -> str:
    """Return the JSON that the log keeps for a file of these rows.

    Delta Transaction Log Protocol, "Per-file Statistics". Times are cut to milliseconds: the greatest is rounded up, so
    that no reader skips a row.
    """
    low, high, nulls = {}, {}, {}
    for name in columns:
        if name not in rows.columns:
            continue
        values = rows[name]
        if isinstance(values.dtype, pl.List | pl.Struct | pl.Array):
            continue
        nulls[name] = values.null_count()
        least, greatest = _bounds(values)
        if least is not None:
            low[name], high[name] = _plain(least), _plain(greatest, up=True)
    return json.dumps({"numRecords": rows.height, "minValues": low, "maxValues": high, "nullCount": nulls})


def _bounds(values: pl.Series) -> tuple[object, object]:
    if values.dtype == pl.Boolean:
        return (None, None)
    if values.dtype.is_float() and not values.is_finite().all():
        # JSON has no infinity, and NaN is above every number for Spark: without bounds the file is read.
        return (None, None)
    return values.min(), values.max()


def _plain(value: object, *, up: bool = False) -> object:
    if isinstance(value, datetime):
        utc = value.astimezone(UTC) if value.tzinfo else value
        cut = utc.replace(microsecond=utc.microsecond // 1000 * 1000)
        if up and cut < utc:
            cut += _MILLISECOND
        return cut.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if isinstance(value, date):
        return value.isoformat()
    return value
