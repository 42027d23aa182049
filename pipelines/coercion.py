"""Reads loosely typed columns as contract types; what cannot be read becomes null, never something else."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from functools import cache

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.contracts import Column

INSTANT = pl.Datetime("us", "UTC")
_PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - arithmetic on times of unknown zone
_FIRST_SECOND = (datetime.min - _EPOCH) // timedelta(seconds=1)  # noqa: DTZ901
_LAST_SECOND = (datetime.max - _EPOCH) // timedelta(seconds=1)  # noqa: DTZ901


def loose_frame(table: pa.Table) -> pl.DataFrame:
    """Return a page as a polars frame with the same values.

    Dictionaries are decoded, zoned times are in UTC, and times that no calendar year holds become text.
    """
    if not table.num_columns:
        return pl.DataFrame()
    columns = [_plain(column) for column in table.columns]
    frame = pl.from_arrow(pa.table(columns, names=table.column_names))
    if not isinstance(frame, pl.DataFrame):
        raise TypeError("a page must be a table")
    return frame


def polars_type(column: Column) -> pl.DataType:
    """Return a column's polars type; instants are microseconds in UTC."""
    return _polars_type(column.arrow_type)


def read_as(column: Column, dtype: pl.DataType) -> pl.Expr:
    """Return the values of the column of that name and `dtype`, read as the contract's type; null where unreadable."""
    source, target = pl.col(column.name), polars_type(column)
    if dtype == target:
        return source
    if isinstance(target, pl.Datetime):
        read = _instant(source, dtype)
    elif isinstance(target, pl.Date):
        read = _date(source, dtype)
    elif isinstance(target, pl.String) and (dtype.is_numeric() or isinstance(dtype, pl.Binary)):
        read = source.cast(pl.String, strict=False)
    elif target.is_numeric() and (dtype.is_numeric() or isinstance(dtype, pl.String)):
        read = _number(source, dtype, target)
    elif target.is_nested() and dtype.is_nested():
        kind = column.arrow_type
        read = source.map_batches(lambda values: _nested(values, kind), return_dtype=target)
    else:
        read = pl.lit(None, dtype=target)
    return read.alias(column.name)


def unreadable_reason(column: Column, dtype: pl.DataType) -> str:
    """Return what to say of a value of `dtype` that could not be read."""
    if column.type != "timestamp":
        return f"wrong type: {column.name}"
    if isinstance(dtype, pl.Datetime):
        return f"{column.name} has no time zone"
    return f"wrong type or no time zone: {column.name}"


@cache
def _polars_type(kind: pa.DataType) -> pl.DataType:
    empty = pl.from_arrow(pa.array([], type=kind))
    return empty.dtype if isinstance(empty, pl.Series) else pl.Null()


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    kind = column.type
    if pa.types.is_timestamp(kind) and not _within(column.cast(pa.int64()), _PER_SECOND[kind.unit]):
        return _times_as_text(column)
    if pa.types.is_date32(kind) and not _within(column.cast(pa.int32()), 1 / 86_400):
        return _dates_as_text(column)
    # Arrow keeps instants in UTC; polars does not know every zone name that Arrow carries, such as +05:30.
    return column.cast(pa.timestamp(kind.unit, "UTC")) if pa.types.is_timestamp(kind) and kind.tz else column


def _within(numbers: pa.ChunkedArray, per_second: float) -> bool:
    limits = pc.min_max(numbers)
    low, high = limits["min"].as_py(), limits["max"].as_py()
    return low is None or (low >= _FIRST_SECOND * per_second and high <= _LAST_SECOND * per_second)


def _times_as_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    kind = column.type
    zone = "+00:00" if kind.tz else ""
    per_second = _PER_SECOND[kind.unit]

    def text(number: int) -> str:
        if not _FIRST_SECOND <= number // per_second <= _LAST_SECOND:
            return str(number)
        return (_EPOCH + timedelta(microseconds=number * 1_000_000 // per_second)).isoformat() + zone

    numbers = column.cast(pa.int64()).to_pylist()
    return pa.chunked_array([[None if number is None else text(number) for number in numbers]], pa.string())


def _dates_as_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    first, last = date.min.toordinal() - _EPOCH.toordinal(), date.max.toordinal() - _EPOCH.toordinal()

    def text(days: int) -> str:
        return (_EPOCH.date() + timedelta(days)).isoformat() if first <= days <= last else str(days)

    numbers = column.cast(pa.int32()).to_pylist()
    return pa.chunked_array([[None if days is None else text(days) for days in numbers]], pa.string())


def _instant(source: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """Zoneless and unreadable times become null, and so a reason."""
    if isinstance(dtype, pl.Datetime) and dtype.time_zone is not None:
        return source.dt.convert_time_zone("UTC").dt.cast_time_unit("us")
    if isinstance(dtype, pl.String):
        return source.map_elements(_parse_aware, return_dtype=INSTANT, skip_nulls=True)
    return pl.lit(None, dtype=INSTANT)


def _parse_aware(text: str) -> datetime | None:
    try:
        parsed = datetime.fromisoformat(text.strip())
        return parsed.astimezone(UTC) if parsed.tzinfo else None
    except (ValueError, OverflowError):
        return None


def _date(source: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    if isinstance(dtype, pl.String):
        return source.str.strip_chars().str.to_date("%Y-%m-%d", strict=False)
    if isinstance(dtype, pl.Datetime):
        day = source.dt.date()
        return pl.when(source == source.dt.truncate("1d")).then(day).otherwise(None)
    return pl.lit(None, dtype=pl.Date)


def _number(source: pl.Expr, dtype: pl.DataType, target: pl.DataType) -> pl.Expr:
    if isinstance(dtype, pl.String):
        return source.str.strip_chars().cast(target, strict=False)
    read = source.cast(target, strict=False)
    if target.is_integer() and not dtype.is_integer():
        return pl.when(read == source).then(read).otherwise(None)
    return read


def _nested(values: pl.Series, kind: pa.DataType) -> pl.Series:
    """Read one value at a time, because a cast of nested values turns unreadable parts into null without a word."""
    read = pa.array([_one(value, kind) for value in values.to_list()], type=kind)
    frame = pl.from_arrow(pa.table([read], names=[values.name]))
    return frame.to_series() if isinstance(frame, pl.DataFrame) else frame


def _one(value: object, kind: pa.DataType) -> object:
    try:
        return pa.array([value], type=kind)[0].as_py()
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, TypeError, ValueError):
        return None
