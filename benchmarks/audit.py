"""Counts what a contestant landed, with readers of its own: delta-rs lists the files, DuckDB reads them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import duckdb
from deltalake import DeltaTable

from benchmarks.history import PRODUCTS, SECONDS, aggregated, minutes, start_of
from benchmarks.measure import BenchmarkError

_TABLE = "raw_market_data_"
# Sums of floats depend on the order of addition.
_TOLERANCE = 1e-9


@dataclass(frozen=True, slots=True)
class Landed:
    """Rows and distinct bars of a lake, and how many files hold them."""

    rows: int
    bars: int
    files: int


def landed(lake: Path) -> Landed:
    """Count a lake's bars; its tables may lie in a folder below."""
    rows = bars = files = 0
    for log in sorted(lake.rglob(f"{_TABLE}*/_delta_log")):
        active = DeltaTable(str(log.parent)).file_uris()
        if not active:
            continue
        counted = duckdb.execute(
            "SELECT count(*), count(DISTINCT (asset_pair, timestamp)) FROM read_parquet($1, hive_partitioning = true)",
            [active],
        ).fetchone()
        rows, bars, files = rows + int(counted[0]), bars + int(counted[1]), files + len(active)
    return Landed(rows, bars, files)


def check_history(lake: Path, days: int) -> None:
    """Compare every asset and timeframe of a lake with the history the server has, 4h bars included.

    Raises:
        BenchmarkError: a bar is missing, double or different.
    """
    for product in PRODUCTS:
        base = minutes(product, days)
        pair = product.replace("-", "")
        for timeframe, seconds in SECONDS.items():
            truth = aggregated(base, seconds)
            wanted = (
                len(truth.time),
                start_of(days).timestamp(),
                float(truth.time[-1]),
                float((truth.open + 2 * truth.high + 3 * truth.low + 4 * truth.close).sum()),
                float(truth.volume.sum()),
            )
            found = _totals(_folder(lake, timeframe), pair)
            if any(abs(a - b) > _TOLERANCE * max(1.0, abs(b)) for a, b in zip(found, wanted, strict=True)):
                raise BenchmarkError(f"{pair} {timeframe} in {lake}: found {found}, the server has {wanted}")


def _folder(lake: Path, timeframe: str) -> Path:
    logs = list(lake.rglob(f"{_TABLE}{timeframe}/_delta_log"))
    if len(logs) != 1:
        raise BenchmarkError(f"{lake} has {len(logs)} tables of {timeframe} bars")
    return logs[0].parent


def _totals(table: Path, pair: str) -> tuple[float, ...]:
    query = """
        SELECT count(*), epoch(min(timestamp)), epoch(max(timestamp)),
               sum(open + 2 * high + 3 * low + 4 * close), sum(volume)
        FROM read_parquet($1, hive_partitioning = true) WHERE asset_pair = $2
    """
    found = duckdb.execute(query, [DeltaTable(str(table)).file_uris(), pair]).fetchone()
    return tuple(float(value or 0) for value in found)
