"""Decides what of a batch is new, restated or merely repeated, reading as little of the table as possible."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pyarrow as pa

from pipelines.storage.files import STATISTICS_STEP, file_actions
from pipelines.storage.partitions import cut
from pipelines.storage.results import NEW, REPEATED, RESTATED, Kinds
from pipelines.storage.scan import among, execute, literal, quoted

if TYPE_CHECKING:
    from deltalake import DeltaTable

    from pipelines.contracts import Contract

ROW = "__row"
PREVIOUS = "__previous"
_SUFFIX = "__stored"


@dataclass(frozen=True, slots=True)
class Decision:
    """What to write: the rows to keep, each with its `ingested_at`, and the kind of every row of the batch."""

    rows: pa.Table
    kinds: Kinds


def decide(table: DeltaTable, contract: Contract, batch: pa.Table, granularity: str | None, now: datetime) -> Decision:
    """Compare a batch with the newest stored version of each of its keys.

    Args:
        table: the table at the version to compare with.
        contract: says what identifies a row and what makes a new version of it.
        batch: source and edge columns; of several versions of one key in it, the last counts.
        granularity: of the table's partition dates.
        now: aware UTC; a restatement gets a later instant than its previous version even if the clock went back.
    """
    if not contract.keys or not batch.num_rows:
        return all_new(batch, now)
    incoming = last_of_each(pl.DataFrame(batch.select(list(contract.keys))), contract.keys)
    stored = newest_stored(table, contract, incoming, granularity)
    if stored is None:
        kept = incoming.select(ROW).with_columns(pl.lit(None, dtype=_TIME).alias(PREVIOUS))
    else:
        kept = _changed(incoming, stored, batch, contract)
    stamps = kept.select(
        pl.max_horizontal(pl.lit(now, dtype=_TIME), pl.col(PREVIOUS) + pl.duration(microseconds=1)).alias("at")
    )["at"]
    places = kept[ROW].to_numpy()
    rows = batch if kept.height == batch.num_rows else batch.take(pa.array(places))
    kinds = np.full(batch.num_rows, REPEATED, np.int8)
    kinds[places] = np.where(kept[PREVIOUS].is_null().to_numpy(), NEW, RESTATED)
    return Decision(_stamped(rows, stamps), kinds)


def all_new(batch: pa.Table, now: datetime) -> Decision:
    """Return the decision to write a whole batch, known from `now` (aware UTC) on."""
    stamps = pl.Series([now], dtype=_TIME).new_from_index(0, batch.num_rows)
    return Decision(_stamped(batch, stamps), np.full(batch.num_rows, NEW, np.int8))


def _changed(incoming: pl.DataFrame, stored: pl.DataFrame, batch: pa.Table, contract: Contract) -> pl.DataFrame:
    """Return the incoming rows that are not stored with the same values: their places and the version before them."""
    keys, values = list(contract.keys), list(contract.value_columns)
    given = pl.DataFrame(batch.select(values))[incoming[ROW]]
    joined = pl.concat([incoming, given], how="horizontal").join(
        stored, on=keys, how="left", nulls_equal=True, suffix=_SUFFIX, maintain_order="left"
    )
    equal = pl.all_horizontal(
        pl.col(PREVIOUS).is_not_null(), *[pl.col(v).eq_missing(pl.col(v + _SUFFIX)) for v in values]
    )
    return joined.filter(~equal).select(ROW, PREVIOUS)


_TIME = pl.Datetime("us", "UTC")


def last_of_each(frame: pl.DataFrame, keys: Sequence[str]) -> pl.DataFrame:
    """Return the last row of each key, in the order given, with its place in the column `__row`."""
    numbered = frame.with_row_index(ROW)
    # The usual batch repeats nothing, and different hashes prove it in a sixth of the time.
    if frame.select(keys).hash_rows().n_unique() == frame.height:
        return numbered
    return numbered.unique(subset=list(keys), keep="last", maintain_order=True)


def _stamped(rows: pa.Table, stamps: pl.Series) -> pa.Table:
    return rows.append_column("ingested_at", stamps.to_arrow().cast(pa.timestamp("us", "UTC")))


def newest_stored(
    table: DeltaTable, contract: Contract, incoming: pl.DataFrame, granularity: str | None
) -> pl.DataFrame | None:
    """Return the newest stored version of each key that might be in the batch; None if none can be.

    Args:
        table: the table at the version to look at.
        contract: says what identifies a row.
        incoming: the batch's key columns.
        granularity: of the table's partition dates.

    Returns:
        Keys, values, and in `PREVIOUS` when the version became known (aware UTC).
    """
    files = file_actions(table)
    if not files.num_rows or not _may_overlap(files, contract, incoming):
        return None
    names = [*contract.keys, *contract.value_columns, "ingested_at"]
    where = _where(contract, incoming, granularity)
    sql = f"SELECT {', '.join(map(quoted, names))} FROM source"  # noqa: S608 - contract names and escaped literals
    rows = execute(table, sql + (f" WHERE {' AND '.join(where)}" if where else ""))
    if not rows.num_rows:
        return None
    frame = pl.DataFrame(rows).rename({"ingested_at": PREVIOUS})
    return frame.sort(PREVIOUS).unique(subset=list(contract.keys), keep="last")


def _may_overlap(files: pa.Table, contract: Contract, incoming: pl.DataFrame) -> bool:
    """Say, from file statistics alone, whether a key of the batch may be in some file."""
    time = contract.event_time
    if time is None or time not in contract.keys or f"min.{time}" not in files.column_names:
        return True
    group = [key for key in contract.keys if f"partition.partition_{key}" in files.column_names]
    columns = {f"min.{time}": "low", f"max.{time}": "high"} | {f"partition.partition_{key}": key for key in group}
    ranges = pl.DataFrame(files.select(list(columns))).rename(columns)
    if ranges["low"].null_count() or ranges["high"].null_count():
        return True
    ranges = ranges.with_columns(pl.col("low").cast(_TIME), pl.col("high").cast(_TIME) + STATISTICS_STEP)
    # For each file, the first incoming row at or after its start: the file matters if that row is not after its end.
    found = ranges.sort("low").join_asof(
        incoming.select(*group, pl.col(time).alias("time")).sort("time"),
        left_on="low",
        right_on="time",
        by=group or None,
        strategy="forward",
        check_sortedness=False,
    )
    return bool((found["time"] <= found["high"]).any())


def _where(contract: Contract, incoming: pl.DataFrame, granularity: str | None) -> list[str]:
    found: list[str] = []
    for key in contract.keys:
        column = incoming[key]
        if column.dtype == pl.String and not column.null_count():
            values = column.unique().sort().to_list()
            found += [among(name, values) for name in (key, f"partition_{key}") if _has(contract, name)]
    time = contract.event_time
    if time is not None and time in contract.keys:
        low, high = incoming[time].min(), incoming[time].max()
        if isinstance(low, datetime) and isinstance(high, datetime):
            found.append(f"{quoted(time)} BETWEEN {literal(low)} AND {literal(high)}")
            if granularity is not None:
                first, last = cut(low, granularity), cut(high, granularity)
                found.append(f"partition_date BETWEEN {literal(first)} AND {literal(last)}")
    return found


def _has(contract: Contract, name: str) -> bool:
    return any(column.name == name for column in contract.columns)
