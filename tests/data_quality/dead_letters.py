"""Dead letters for tests, and what a lake holds as DuckDB reads it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
from deltalake import DeltaTable

from pipelines.data_quality import DeadLetterQueue
from pipelines.data_quality.replay import Replay, ReplayedFile
from pipelines.edge import RefusedRow
from pipelines.storage import DeltaLakeManager

FIRST = datetime(2025, 12, 7, tzinfo=UTC)
ERROR = "schema_validation_failed"
HOURS: dict[str, object] = {
    "dataset": "raw_market_data",
    "asset_pair": "BTCUSD",
    "provider": "coinbase",
    "timeframe": "1h",
    "price_side": "trade",
    "is_adjusted": False,
    "is_derived": False,
}


def bar(number: int, **columns: object) -> dict[str, object]:
    """Return the sound 1h bar of an hour since `FIRST`, with other values if given."""
    return {
        "timestamp": (FIRST + timedelta(hours=number)).isoformat(),
        "open": 100.0,
        "high": 101.0 + number,
        "low": 99.0,
        "close": 100.5,
        "volume": 1.5,
        **columns,
    }


def bury(
    queue: DeadLetterQueue,
    rows: Iterable[Mapping[str, object]],
    context: Mapping[str, object] = HOURS,
    why: str = "bad",
) -> Path:
    """Write rows as refused."""
    return queue.write(ERROR, context, (RefusedRow(dict(row), why, None) for row in rows))


def replayed(
    queue: DeadLetterQueue, lake: DeltaLakeManager, *paths: Path, dry_run: bool = False, **more: Any
) -> ReplayedFile:
    """Replay files, all of the queue by default, and return what became of the only one."""
    result = Replay(queue, lake.settings, lambda _: lake, **more).run(paths or queue.files(), dry_run=dry_run)
    (found,) = result.files
    return found


def records(path: Path) -> list[dict[str, Any]]:
    """Return a file's records as `json` reads them."""
    found: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["records"]
    return found


def stored(lake: DeltaLakeManager, table: str = "raw_market_data_1h") -> pd.DataFrame:
    """Return all versions that a table holds, oldest first; empty without the table."""
    folder = Path(lake.storage_path) / table
    if not folder.is_dir():
        return pd.DataFrame({"timestamp": [], "close": []})
    rows = DeltaTable(str(folder)).to_pyarrow_dataset()
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.register("rows", rows)
        return connection.execute("SELECT * FROM rows ORDER BY timestamp, ingested_at").df()
