"""Reference: what a good engineer writes by hand in an afternoon: httpx, polars and delta-rs, no checks, no memory.

It lands the same tables in the same partitions. It neither validates nor deduplicates nor remembers what it has.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import defaultdict
from datetime import UTC, datetime

import httpx
import polars as pl
from deltalake import write_deltalake

from benchmarks.history import NATIVE
from benchmarks.references.wire import Window, arguments, windows

_IN_FLIGHT = 16
_COLUMNS = ["timestamp", "low", "high", "open", "close", "volume"]
_CUT = {"1m": "1d", "5m": "1d", "15m": "1d", "1h": "1mo", "4h": "1mo", "1d": "1y"}


async def _fetch_all(url: str, days: int) -> dict[tuple[str, str], list[list[float]]]:
    rows: dict[tuple[str, str], list[list[float]]] = defaultdict(list)
    flight = asyncio.Semaphore(_IN_FLIGHT)

    async def fetch(client: httpx.AsyncClient, window: Window) -> None:
        async with flight:
            response = await client.get(window.path, params=window.params)
        response.raise_for_status()
        rows[window.timeframe, window.product.replace("-", "")] += response.json()

    async with httpx.AsyncClient(base_url=url) as client, asyncio.TaskGroup() as group:
        for timeframe in NATIVE:
            for window in windows(timeframe, days):
                group.create_task(fetch(client, window))
    return rows


def _frame(pair: str, rows: list[list[float]]) -> pl.DataFrame:
    frame = pl.DataFrame(rows, schema=dict.fromkeys(_COLUMNS, pl.Float64), orient="row")
    opened = pl.from_epoch(pl.col("timestamp").cast(pl.Int64)).cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    return frame.with_columns(opened, pl.lit(pair).alias("asset_pair")).sort("timestamp")


def _four_hours(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.group_by_dynamic("timestamp", every="4h", group_by="asset_pair").agg(
        pl.col("low").min(),
        pl.col("high").max(),
        pl.col("open").first(),
        pl.col("close").last(),
        pl.col("volume").sum(),
    )


def _write(lake: str, timeframe: str, frame: pl.DataFrame, began: datetime) -> None:
    landed = frame.with_columns(
        pl.lit(timeframe).alias("timeframe"),
        pl.lit("coinbase").alias("provider"),
        pl.lit(began).alias("ingested_at"),
        pl.col("timestamp").dt.truncate(_CUT[timeframe]).dt.date().alias("partition_date"),
        pl.col("asset_pair").alias("partition_asset_pair"),
    )
    table = f"{lake}/raw_market_data_{timeframe}"
    write_deltalake(table, landed, mode="append", partition_by=["partition_date", "partition_asset_pair"])


def main() -> None:
    """Backfill, and print the seconds it took."""
    given = arguments()
    began, clock = datetime.now(UTC), time.perf_counter()
    rows = asyncio.run(_fetch_all(given.url, given.days))
    fetched = time.perf_counter() - clock
    frames: dict[str, list[pl.DataFrame]] = defaultdict(list)
    for (timeframe, pair), candles in rows.items():
        frames[timeframe].append(_frame(pair, candles))
    tables = {timeframe: pl.concat(parts) for timeframe, parts in frames.items()}
    tables["4h"] = _four_hours(tables["1h"])
    for timeframe, frame in tables.items():
        _write(given.lake, timeframe, frame, began)
    print(json.dumps({"seconds": time.perf_counter() - clock, "fetch_seconds": fetched}))


if __name__ == "__main__":
    main()
