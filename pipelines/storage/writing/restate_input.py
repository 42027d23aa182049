"""What is merged into an append-only table, made uniform: known columns, readable keys, one row per key."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl
import pyarrow as pa

from pipelines.coercion import INSTANT, loose_frame, read_as
from pipelines.edge import DEFECT, asset_bounds
from pipelines.errors import ContractError, InvalidRangeError
from pipelines.timeframes import parse_instant

if TYPE_CHECKING:
    from pipelines.contracts import Column, Contract

KEY = "__key_"
PROVIDER = "provider"


@dataclass(frozen=True, slots=True)
class Source:
    """The rows to merge, one per key; each `__key_<name>` is a key in the contract's type, null if unreadable."""

    rows: pl.DataFrame
    given: tuple[str, ...]
    keys: tuple[str, ...]
    updates: tuple[str, ...]
    duplicates: int


def source_rows(
    table: pa.Table,
    contract: Contract,
    timeframe: str | None,
    merge_keys: Sequence[str],
    update_columns: Sequence[str] | None,
) -> Source:
    """Return the rows in the order given; of several with the same key the last one.

    Raises:
        ContractError: a column is unknown, storage's own or cannot be updated, or a key is missing, null or does not
            identify a row.
    """
    given = tuple(table.column_names)
    _check_columns(given, contract)
    keys = _identity(contract, merge_keys, given)
    updates = _updates(contract, given, update_columns)
    rows = loose_frame(table)
    for name in keys:
        if nulls := rows[name].null_count():
            raise ContractError(f"{nulls} of {rows.height} rows have no {name}, which they are merged by")
    rows = _defective(_normalised(rows, contract), contract, timeframe)
    kept = rows.unique(subset=list(keys), keep="last", maintain_order=True)
    typed = [read_as(contract.column(name), kept.schema[name]).alias(KEY + name) for name in keys]
    return Source(kept.with_columns(typed), given, keys, updates, rows.height - kept.height)


def _check_columns(given: Sequence[str], contract: Contract) -> None:
    known = {column.name: column for column in contract.columns}
    unknown = [name for name in given if name not in known]
    if unknown:
        allowed = ", ".join(column.name for column in contract.provided_by("source", "edge"))
        raise ContractError(f"{contract.id} has no column {', '.join(unknown)}; it takes {allowed}")
    own = [name for name in given if known[name].provided == "storage"]
    if own:
        raise ContractError(f"storage itself fills {', '.join(own)}; leave them out")


def _identity(contract: Contract, merge_keys: Sequence[str], given: Sequence[str]) -> tuple[str, ...]:
    """Return the key columns that rows are matched by: the merge keys, and the provider if the rows name it."""
    if not contract.keys:
        raise ContractError(f"{contract.id} is a log: its rows have no key to merge by")
    needed = [name for name in contract.keys if name != PROVIDER]
    if not set(needed) <= set(merge_keys) <= set(contract.keys):
        raise ContractError(
            f"{', '.join(merge_keys) or 'no merge key'} does not identify a row of {contract.id}; "
            f"merge by {', '.join(needed)}, and {PROVIDER} where it is known"
        )
    absent = [name for name in merge_keys if name not in given]
    if absent:
        raise ContractError(f"the rows lack the merge key {', '.join(absent)}; they have {', '.join(given)}")
    return tuple(name for name in contract.keys if name in given)


def _updates(contract: Contract, given: Sequence[str], wanted: Sequence[str] | None) -> tuple[str, ...]:
    """Return the columns to update: those named, or all given that are the source's and no key."""
    possible = [column.name for column in contract.provided_by("source") if not column.key]
    if wanted is None:
        return tuple(name for name in possible if name in given)
    for name in wanted:
        contract.column(name)
        if name not in possible:
            raise ContractError(f"{name} says whose row it is and cannot be updated; {', '.join(possible)} can")
        if name not in given:
            raise ContractError(f"the rows lack {name}, which is to be updated; they have {', '.join(given)}")
    if wanted and not set(wanted) & set(contract.value_columns):
        raise ContractError(f"{', '.join(wanted)} alone makes no new version of a row of {contract.id}")
    return tuple(wanted)


def _normalised(rows: pl.DataFrame, contract: Contract) -> pl.DataFrame:
    """Make times aware UTC and asset pairs as registered, where they can be read; the edge refuses the rest."""
    for name in rows.columns:
        column = contract.column(name)
        if column.type == "timestamp":
            rows = rows.with_columns(_instants(rows[name]).alias(name))
        elif name == "asset_pair" and rows.schema[name] == pl.String:
            bounds = asset_bounds(rows[name].unique().drop_nulls())
            pairs = dict(zip(bounds["asset_pair"], bounds["registered_as"], strict=True))
            rows = rows.with_columns(pl.col(name).replace(pairs))
        elif column.key:
            rows = _as_typed(rows, column)
    return rows


def _as_typed(rows: pl.DataFrame, column: Column) -> pl.DataFrame:
    typed = rows.select(read_as(column, rows.schema[column.name])).to_series()
    return rows.with_columns(typed) if typed.null_count() == rows[column.name].null_count() else rows


def _instants(values: pl.Series) -> pl.Series:
    if isinstance(values.dtype, pl.Datetime):
        zoned = values if values.dtype.time_zone else values.dt.replace_time_zone("UTC")
        return zoned.dt.cast_time_unit("us").dt.convert_time_zone("UTC")
    if values.dtype == pl.Date:
        return values.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    if values.dtype != pl.String:
        return values
    texts = values.unique().drop_nulls().to_list()
    read = {text: _instant_text(text) for text in texts}
    aware = values.replace(read)
    if any(not _is_time(text) for text in texts):
        return aware
    return aware.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f%:z", time_unit="us", time_zone="UTC").cast(INSTANT)


def _is_time(text: str) -> bool:
    try:
        parse_instant(text)
    except (InvalidRangeError, OverflowError):
        return False
    return True


def _instant_text(text: str) -> str:
    return parse_instant(text).isoformat(timespec="microseconds") if _is_time(text) else text


def _defective(rows: pl.DataFrame, contract: Contract, timeframe: str | None) -> pl.DataFrame:
    """Name what the edge does not look at, for it fills these columns itself as a rule."""
    reasons = []
    for column in contract.provided_by("edge"):
        if column.name not in rows.columns or not column.allowed:
            continue
        text = pl.col(column.name).cast(pl.String, strict=False)
        if column.name == "timeframe" and timeframe is not None:
            reasons.append(pl.when(text.ne_missing(timeframe)).then(pl.lit(f"timeframe is not {timeframe}")))
        else:
            reasons.append(pl.when(~text.is_in(list(column.allowed))).then(pl.lit(f"unknown {column.name}")))
    if not reasons:
        return rows
    return rows.with_columns(pl.concat_str(reasons, separator="; ", ignore_nulls=True).alias(DEFECT))
