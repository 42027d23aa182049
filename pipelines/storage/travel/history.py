"""What happened to a table and when, and what it holds in numbers. No JVM."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.storage.creation import ORIGIN, property_of
from pipelines.storage.files import file_actions
from pipelines.storage.undeclared import contract_of
from pipelines.timeframes import EPOCH

if TYPE_CHECKING:
    import pandas as pd
    from deltalake import DeltaTable

    from pipelines.storage.lake import Lake

_COLUMNS = (
    "version",
    "timestamp",
    "operation",
    "operationMetrics",
    "operationParameters",
    "userMetadata",
    "engineInfo",
)


@dataclass(frozen=True, slots=True)
class TableInfo:
    """One table in numbers, from its log alone; `newest` is the latest event time (aware UTC)."""

    name: str
    version: int
    rows: int
    files: int
    bytes: int
    newest: datetime | None
    origin: str | None


def entries(table: DeltaTable) -> list[dict[str, Any]]:
    """Return the log's commits, newest first, with `timestamp` made aware UTC."""
    return [entry | {"timestamp": _instant(entry["timestamp"])} for entry in table.history()]


def history_frame(table: DeltaTable) -> pd.DataFrame:
    """Return the commits, newest first: version, timestamp (aware UTC), operation, operationMetrics and more."""
    import pandas as pd  # noqa: PLC0415 - slow to import

    rows = [{name: entry.get(name) for name in _COLUMNS} for entry in entries(table)]
    for row in rows:
        row["operationMetrics"] = _numbers(row["operationMetrics"] or {})
    frame = pd.DataFrame(rows, columns=list(_COLUMNS))
    return frame.astype({"version": "int64", "timestamp": "datetime64[ms, UTC]"})


def table_info(lake: Lake, table_name: str) -> TableInfo:
    """Return a table's numbers from its log's statistics; reads no data."""
    table = lake.open(table_name)
    files = file_actions(table)
    return TableInfo(
        name=table_name,
        version=table.version(),
        rows=_sum(files, "num_records"),
        files=files.num_rows,
        bytes=_sum(files, "size_bytes"),
        newest=_newest(table, files, table_name),
        origin=property_of(table, ORIGIN),
    )


def _newest(table: DeltaTable, files: pa.Table, table_name: str) -> datetime | None:
    time = contract_of(table, table_name).event_time
    if f"max.{time}" not in files.column_names:
        return None
    newest = pc.max(files[f"max.{time}"]).as_py()
    if not isinstance(newest, datetime):
        return None
    # A table without a contract may have zoneless times; they are UTC.
    return newest if newest.tzinfo else newest.replace(tzinfo=UTC)


def _sum(files: pa.Table, column: str) -> int:
    return int(pc.sum(files[column]).as_py() or 0) if column in files.column_names else 0


def _instant(milliseconds: int) -> datetime:
    return (EPOCH + timedelta(milliseconds=milliseconds)).astimezone(UTC)


def _numbers(metrics: dict[str, Any]) -> dict[str, Any]:
    """Spark writes metrics as text, delta-rs as numbers: return numbers."""
    return {name: _number(value) for name, value in metrics.items()}


def _number(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value
