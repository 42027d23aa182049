"""From a file's raw columns to contract columns: typed where that is safe, else left as text for the edge."""

from __future__ import annotations

import json
from functools import reduce

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.contracts import Column
from pipelines.sources.base import MARKET_DATA
from pipelines.sources.files.columns import Columns
from pipelines.sources.files.spec import FileSpec
from pipelines.sources.files.times import read_times
from pipelines.timeframes import Timeframe

DEFECT = "_defect"


def shaped(raw: pa.Table, spec: FileSpec, columns: Columns) -> pa.Table:
    """Return a raw table, its columns already renamed, with times as instants and numbers as doubles.

    Optional columns that the file lacks are null. A number that cannot be read leaves its column as text, so that the
    edge refuses just its row; a row with any other defect says so in the text column `_defect`.
    """
    parts: dict[str, pa.Array] = {}
    defects = [_flat(raw[DEFECT])] if DEFECT in raw.column_names else []
    for name in columns.wanted:
        column = columns.contract.column(name)
        if name not in raw.column_names:
            if not column.required:
                parts[name] = pa.nulls(raw.num_rows, column.arrow_type)
            continue
        values, defect = _converted(_flat(raw[name]), column, spec)
        parts[name] = values
        if defect is not None:
            defects.append(defect)
    if defects:
        parts[DEFECT] = reduce(_joined, (defect.fill_null("") for defect in defects))
    return pa.table(parts)


def _joined(one: pa.Array, other: pa.Array) -> pa.Array:
    both = pc.and_(pc.not_equal(one, ""), pc.not_equal(other, ""))
    return pc.binary_join_element_wise(one, pc.if_else(both, "; ", ""), other, "")


def _flat(values: pa.ChunkedArray) -> pa.Array:
    flat = values.combine_chunks()
    flat = flat.chunk(0) if isinstance(flat, pa.ChunkedArray) else flat
    return flat.cast(flat.type.value_type) if pa.types.is_dictionary(flat.type) else flat


def _converted(values: pa.Array, column: Column, spec: FileSpec) -> tuple[pa.Array, pa.Array | None]:
    kind = column.arrow_type
    if pa.types.is_timestamp(kind):
        daily = spec.dataset != MARKET_DATA or spec.timeframe is Timeframe.D1
        return read_times(values, spec.tz, bare_dates=daily)
    if pa.types.is_nested(kind):
        return _nested(values, column.name, kind)
    if pa.types.is_floating(kind):
        return _number(values, kind), None
    return values, None


def _number(values: pa.Array, kind: pa.DataType) -> pa.Array:
    given = values.type
    if pa.types.is_integer(given) or pa.types.is_floating(given) or pa.types.is_decimal(given):
        return values.cast(kind, safe=False)
    if not (pa.types.is_string(given) or pa.types.is_large_string(given)):
        return values
    number = _cast(values, kind)
    if number is None:
        number = _cast(pc.utf8_trim_whitespace(values), kind)
    return values if number is None else number


def _cast(values: pa.Array, kind: pa.DataType) -> pa.Array | None:
    try:
        return values.cast(kind)
    except pa.ArrowInvalid:
        return None


def _nested(values: pa.Array, name: str, kind: pa.DataType) -> tuple[pa.Array, pa.Array | None]:
    """Read lists and records, which CSV holds as JSON text."""
    if values.type == kind:
        return values, None
    good: list[object] = []
    defects: list[str | None] = []
    for value in values.to_pylist():
        try:
            parsed = json.loads(value) if isinstance(value, str) else value
            good.extend(pa.array([parsed], kind).to_pylist())
            defects.append(None)
        except (ValueError, TypeError, pa.ArrowException):
            good.append(None)
            defects.append(f"{name} is not {kind}: {str(value)[:80]!r}")
    found = any(defect is not None for defect in defects)
    return pa.array(good, kind), pa.array(defects, pa.string()) if found else None
