"""Partition values: event time cut to a day, month or year; other partition columns copy another column."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.contracts import PARTITION_DATE, PARTITION_PREFIX, Contract

if TYPE_CHECKING:
    from pipelines.storage.files import Partition


def cut(instant: datetime, granularity: str) -> date:
    """Return the partition date of an aware instant."""
    day = instant.astimezone(UTC).date()
    if granularity == "year":
        return day.replace(month=1, day=1)
    return day.replace(day=1) if granularity == "month" else day


def add_partitions(data: pa.Table, contract: Contract, granularity: str | None) -> pa.Table:
    """Return the table with the contract's partition columns appended."""
    for name in contract.partition_columns:
        values = partition_dates(data[contract.event_time], granularity) if name == PARTITION_DATE else None
        data = data.append_column(name, data[name.removeprefix(PARTITION_PREFIX)] if values is None else values)
    return data


def partitions_of(rows: pa.Table, contract: Contract, granularity: str | None) -> set[Partition]:
    """Return the partitions that rows of a contract fall into, as a table's log spells them."""
    keyed = add_partitions(rows, contract, granularity)
    found = keyed.select(list(contract.partition_columns)).group_by(list(contract.partition_columns)).aggregate([])
    return {tuple(None if value is None else str(value) for value in row.values()) for row in found.to_pylist()}


def partition_dates(times: pa.ChunkedArray, granularity: str | None) -> pa.ChunkedArray:
    """Return the partition date of each instant; days if nothing else is said."""
    if granularity in {None, "day"}:
        # A plain cut of the number, many times as fast as the calendar.
        return times.cast(pa.timestamp("us")).cast(pa.date32(), safe=False)
    return pc.floor_temporal(times, unit=granularity).cast(pa.timestamp("us")).cast(pa.date32())
