"""What a lake holds, read with delta-rs and DuckDB and none of our own code."""

from __future__ import annotations

from pathlib import Path

import duckdb
from deltalake import DeltaTable


def rows_of(lake: Path, table: str, sql: str) -> list[tuple[object, ...]]:
    """Run SQL over one table, called `rows`."""
    rows = DeltaTable(str(lake / table)).to_pyarrow_table()  # noqa: F841 - DuckDB finds it by name
    return duckdb.sql(sql).fetchall()


def records(lake: Path) -> dict[tuple[str, str, str], int]:
    """Return the rows of all tables of bars by asset pair, length of bar and provider."""
    found: dict[tuple[str, str, str], int] = {}
    for folder in sorted(lake.glob("raw_market_data_*")):
        sql = "select asset_pair, timeframe, provider, count(*) from rows group by all"
        found |= {(pair, length, who): count for pair, length, who, count in rows_of(lake, folder.name, sql)}
    return found
