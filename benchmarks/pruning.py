"""The query benchmark: one asset and seven days out of 5M bars in 10,000 files, as they lie in three layouts."""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import DeltaTable, Schema
from deltalake.transaction import AddAction, create_table_with_add_actions

from benchmarks.bars import A_DAY, START, bars
from benchmarks.measure import PYTHON, BenchmarkError, run, say
from pipelines.config import load_settings
from pipelines.storage import DeltaLakeManager
from pipelines.storage.upkeep.file_statistics import statistics as file_statistics

TABLE, ASSET, SPAN = "bars", "BTCUSD", timedelta(days=7)
LAYOUTS = ("no partitions", "partitioned", "partitioned, Z-ordered")
ENGINES = ("delta-rs", "spark")
FILES = 10_000
_INDEXED = ["asset_pair", "timestamp"]
_PARTITIONS = ["partition_date", "partition_asset_pair"]
_REPEATS = 5


@dataclass(frozen=True, slots=True)
class Query:
    """One layout read by one reader: median seconds, and what the log's statistics leave to be read."""

    layout: str
    reader: str
    seconds: float
    files: int
    read_files: int
    read_bytes: int


def measure(days: int) -> list[Query]:
    """Lay the same bars out in three ways and time the same query on each.

    Raises:
        BenchmarkError: a reader finds other rows.
    """
    found = []
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        scattered = _shuffled(days)
        for place, layout in enumerate(LAYOUTS):
            lake = Path(scratch) / str(place)
            _make(lake, scattered, partitioned=place > 0)
            if layout == LAYOUTS[2]:
                settings = load_settings(overrides={"storage": {"engine": "embedded"}})
                done = DeltaLakeManager(lake, settings).optimize_table(TABLE, zorder_columns=_INDEXED)
                say(f"  {done.files_removed:,} files compacted to {done.files_added:,}")
            found += [_query(layout, lake, reader, days) for reader in ENGINES]
    return found


def _shuffled(days: int) -> pa.Table:
    """Return bars in no order, so that without a layout no file can be skipped."""
    rows = bars(days)
    order = np.random.default_rng(7).permutation(rows.num_rows)
    return rows.take(pa.array(order))


def _make(lake: Path, rows: pa.Table, *, partitioned: bool) -> None:
    """Write the rows as 10,000 files and name them all in one commit."""
    folder = lake / TABLE
    folder.mkdir(parents=True)
    if partitioned:
        month = pc.floor_temporal(rows["timestamp"], unit="month").cast(pa.timestamp("us")).cast(pa.date32())
        rows = rows.append_column("partition_date", month).append_column("partition_asset_pair", rows["asset_pair"])
    actions = [_add(folder, part, partitioned=partitioned) for part in _parts(rows, partitioned=partitioned)]
    create_table_with_add_actions(
        str(folder),
        Schema.from_arrow(rows.schema),
        actions,
        partition_by=_PARTITIONS if partitioned else None,
        configuration={"delta.dataSkippingStatsColumns": ",".join(_INDEXED)},
    )
    if partitioned:
        DeltaTable(str(folder)).alter.set_table_properties(
            {"lakehouse.partition_granularity": "month"}, raise_if_not_exists=False
        )


def _parts(rows: pa.Table, *, partitioned: bool) -> Iterator[pa.Table]:
    groups = [rows]
    if partitioned:
        groups = [group.to_arrow() for group in pl.DataFrame(rows).partition_by(_PARTITIONS)]
    each = max(1, FILES // len(groups))
    for group in groups:
        borders = np.linspace(0, group.num_rows, each + 1).astype(int)
        for start, end in pairwise(borders):
            yield group.slice(start, end - start)


def _add(folder: Path, part: pa.Table, *, partitioned: bool) -> AddAction:
    values = {name: str(part[name][0].as_py()) for name in _PARTITIONS} if partitioned else {}
    place = "/".join(f"{name}={value}" for name, value in values.items())
    path = f"{place}/part-{uuid.uuid4()}.parquet" if place else f"part-{uuid.uuid4()}.parquet"
    (folder / place).mkdir(parents=True, exist_ok=True)
    rows = part.drop_columns(list(values))
    pq.write_table(rows, folder / path, compression="zstd")
    size, now = (folder / path).stat().st_size, int(time.time() * 1000)
    return AddAction(path, size, values, now, True, file_statistics(pl.DataFrame(rows), _INDEXED))


def _query(layout: str, lake: Path, reader: str, days: int) -> Query:
    done = run([PYTHON, "-m", "benchmarks.pruning", "--lake", lake, "--reader", reader, "--days", str(days)])
    if done.answer["rows"] != SPAN.days * A_DAY:
        raise BenchmarkError(f"{layout}, {reader}: {done.answer['rows']} rows")
    files, read_files, read_bytes = _left_to_read(lake, days)
    say(f"  {layout}, {reader}: {done.answer['seconds']:.3f} s, {read_files:,} of {files:,} files")
    return Query(layout, reader, float(done.answer["seconds"]), files, read_files, read_bytes)


def _left_to_read(lake: Path, days: int) -> tuple[int, int, int]:
    """Return how many files there are, and how many files and bytes the log cannot rule out."""
    actions = pl.DataFrame(
        pa.RecordBatchReader.from_stream(DeltaTable(str(lake / TABLE)).get_add_actions(flatten=True)).read_all()
    )
    start, end = _span(days)
    wanted = (pl.col("min.timestamp") < end) & (pl.col("max.timestamp") >= start)
    wanted &= (pl.col("min.asset_pair") <= ASSET) & (pl.col("max.asset_pair") >= ASSET)
    if "partition.partition_date" in actions.columns:
        first = start.date().replace(day=1)
        wanted &= pl.col("partition.partition_asset_pair") == ASSET
        wanted &= pl.col("partition.partition_date").is_between(first, end.date())
    left = actions.filter(wanted)
    return actions.height, left.height, int(left["size_bytes"].sum())


def _span(days: int) -> tuple[Any, Any]:
    start = START + timedelta(days=days // 2)
    return start, start + SPAN


def _timed(lake: Path, reader: str, days: int) -> dict[str, Any]:
    """Read in this process: once to warm up, then the median of five."""
    manager = DeltaLakeManager(lake, load_settings())
    start, end = _span(days)

    def read() -> int:
        if reader == "spark":
            return int(manager.scan_table(TABLE, start, end, ASSET).toArrow().num_rows)
        return int(manager.read_arrow(TABLE, start, end, ASSET).num_rows)

    seconds, rows = [], read()
    for _ in range(_REPEATS):
        clock = time.perf_counter()
        rows = read()
        seconds.append(time.perf_counter() - clock)
    return {"seconds": statistics.median(seconds), "rows": rows}


def main() -> None:
    """Read the arguments, query, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lake", type=Path, required=True)
    parser.add_argument("--reader", choices=ENGINES, required=True)
    parser.add_argument("--days", type=int, required=True)
    given = parser.parse_args()
    print(json.dumps(_timed(given.lake, given.reader, given.days)))


if __name__ == "__main__":
    main()
