"""The layout of a minute table, `python -m benchmarks.layout`: partitions by day, month, year; zstd, snappy, gzip.

A year of 1m bars of two assets is appended in three commits, as a backfill does, by the embedded engine, once for each
granularity and codec, into empty lakes. A day and a month in the middle of the year are then read for one asset, and
that day is appended once more for both: all of it is known, and has to be found out as such.

Then a month arrives day by day, with maintenance after each day: what of it is written again?
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.bars import A_DAY, ASSETS, START, bars
from benchmarks.measure import BenchmarkError, say
from pipelines.config import Settings
from pipelines.storage import DeltaLakeManager, TableInfo

TABLE = "raw_market_data_1m"
_GRANULARITIES = ("day", "month", "year")
_CODECS = ("zstd", "snappy", "gzip")
_PAIRS = ASSETS[:2]
_COMMITS = 3
_WRITES = 3
_REPEATS = 7
_MONTH = 30
_HEAD = (
    "partitions",
    "codec",
    "files",
    "MiB",
    "log KiB",
    "bytes/row",
    "write s",
    "one day ms",
    "one month ms",
    "known day ms",
)


@dataclass(frozen=True, slots=True)
class Layout:
    """What a layout takes, and median seconds to write it, read a day or a month of an asset, append a day again."""

    granularity: str
    codec: str
    files: int
    bytes: int
    log_bytes: int
    write: float
    day: float
    month: float
    again: float


@dataclass(frozen=True, slots=True)
class Upkeep:
    """A month of daily appends: bytes appended, bytes that maintenance wrote again, files at the end, seconds."""

    granularity: str
    appended: int
    rewritten: int
    files: int
    seconds: float


def measure(days: int) -> Iterator[Layout]:
    """Write and read each layout of so many days of minutes.

    Raises:
        BenchmarkError: a read or a table had another number of rows than it should.
    """
    chunks = list(_chunks(days))
    # Whoever comes first would bear what a process loads once.
    _measured("day", "zstd", [chunk.slice(0, A_DAY * _MONTH) for chunk in chunks[:1]], days=1)
    for granularity in _GRANULARITIES:
        for codec in _CODECS:
            found = _measured(granularity, codec, chunks)
            say(f"  {granularity} {codec}: {found.write:.1f} s, {found.files} files, {found.bytes / 2**20:.1f} MiB")
            yield found


def _chunks(days: int) -> Iterator[pa.Table]:
    ends = [days * part // _COMMITS for part in range(_COMMITS + 1)]
    for first, end in pairwise(ends):
        yield _of_pairs(bars(end - first, first))


def _of_pairs(made: pa.Table) -> pa.Table:
    return made.filter(pc.is_in(made["asset_pair"], pa.array(_PAIRS)))


def _measured(granularity: str, codec: str, chunks: list[pa.Table], days: int = _MONTH) -> Layout:
    """Write a lake several times, and look at the last one."""
    seconds = []
    for left in reversed(range(_WRITES)):
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            lake = _lake(Path(folder), granularity, codec)
            began = time.perf_counter()
            for number, chunk in enumerate(chunks):
                lake.append(TABLE, chunk, f"run-{number}")
            seconds.append(time.perf_counter() - began)
            if not left:
                return _looked_at(lake, granularity, codec, chunks, days, statistics.median(seconds))
    raise BenchmarkError("nothing was written")


def upkeep(granularity: str) -> Upkeep:
    """Append a month day by day, and maintain the table after each."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        lake, appended = _lake(Path(folder), granularity, "zstd"), 0
        chunks = [_of_pairs(bars(1, day)) for day in range(_MONTH)]
        began = time.perf_counter()
        for number, chunk in enumerate(chunks):
            before = _info(lake).bytes
            lake.append(TABLE, chunk, f"run-{number}")
            appended += _info(lake).bytes - before
            lake.maintain([TABLE])
        seconds = time.perf_counter() - began
        # Nothing is old enough for the vacuum yet: all that was ever written is there.
        written = sum(path.stat().st_size for path in (Path(folder) / TABLE).rglob("part*/*.parquet"))
        return Upkeep(granularity, appended, written - appended, _info(lake).files, seconds)


def _info(lake: DeltaLakeManager) -> TableInfo:
    return next(info for info in lake.tables() if info.name == TABLE)


def _lake(folder: Path, granularity: str, codec: str) -> DeltaLakeManager:
    tables = {"storage_path": str(folder), "partition_granularity": {"1m": granularity}, "compression": codec}
    lake = DeltaLakeManager(folder, Settings.model_validate({"delta_lake": tables, "storage": {"engine": "embedded"}}))
    lake.ensure_table(TABLE)
    return lake


def _looked_at(
    lake: DeltaLakeManager, granularity: str, codec: str, chunks: list[pa.Table], days: int, write: float
) -> Layout:
    info = _info(lake)
    rows = sum(chunk.num_rows for chunk in chunks)
    if info.rows != rows:
        raise BenchmarkError(f"{granularity} {codec} landed {info.rows} rows, not {rows}")
    log = sum(path.stat().st_size for path in (Path(lake.storage_path) / TABLE / "_delta_log").iterdir())
    middle = START + timedelta(days=rows // len(_PAIRS) // A_DAY // 2)
    day, month = (_read(lake, middle, length) for length in (1, days))
    again = _again(lake, chunks, middle)
    return Layout(granularity, codec, info.files, info.bytes, log, write, day, month, again)


def _again(lake: DeltaLakeManager, chunks: list[pa.Table], start: datetime) -> float:
    """Return the median seconds to append a known day of both assets."""
    times = pa.concat_tables(chunks)
    low, high = (pa.scalar(each, times["timestamp"].type) for each in (start, start + timedelta(days=1)))
    known = times.filter(pc.and_(pc.greater_equal(times["timestamp"], low), pc.less(times["timestamp"], high)))
    seconds = []
    for number in range(_REPEATS):
        began = time.perf_counter()
        landed = lake.append(TABLE, known, f"again-{number}").rows
        seconds.append(time.perf_counter() - began)
        if landed:
            raise BenchmarkError(f"{landed} known rows landed again")
    return statistics.median(seconds)


def _read(lake: DeltaLakeManager, start: datetime, days: int) -> float:
    """Return the median seconds to read so many days of one asset, the opening of the table included."""
    seconds = []
    for _ in range(_REPEATS):
        began = time.perf_counter()
        found = lake.read_arrow(TABLE, start, start + timedelta(days=days), _PAIRS[0]).num_rows
        seconds.append(time.perf_counter() - began)
        if found != days * A_DAY:
            raise BenchmarkError(f"{days} days have {found} rows, not {days * A_DAY}")
    return statistics.median(seconds)


def table(results: list[Layout], days: int) -> str:
    """Return the measurements as a table for docs/storage.md."""
    rows = len(_PAIRS) * days * A_DAY
    lines = [f"| {' | '.join(_cells(each, rows))} |" for each in results]
    memory = psutil.virtual_memory().total / 2**30
    machine = f"{os.cpu_count()} cores, {memory:.0f} GiB, Python {platform.python_version()}"
    measured = f"Measured {datetime.now(UTC):%Y-%m-%d} on {machine}: {rows:,} rows, {len(_PAIRS)} assets, {days} days."
    head = [f"| {' | '.join(_HEAD)} |", f"| --- | --- |{' ---: |' * (len(_HEAD) - 2)}"]
    return "\n".join([measured, "", *head, *lines])


def _cells(each: Layout, rows: int) -> list[str]:
    sizes = [
        f"{each.files:,}",
        f"{each.bytes / 2**20:.1f}",
        f"{each.log_bytes / 2**10:,.0f}",
        f"{each.bytes / rows:.1f}",
    ]
    reads = [f"{seconds * 1000:.0f}" for seconds in (each.day, each.month, each.again)]
    return [each.granularity, each.codec, *sizes, f"{each.write:.1f}", *reads]


def upkeep_table(results: list[Upkeep]) -> str:
    """Return the upkeep as a table for docs/storage.md."""
    head = [
        "| partitions | appended KiB | written again KiB | files | seconds |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    lines = [
        f"| {each.granularity} | {each.appended / 2**10:,.0f} | {each.rewritten / 2**10:,.0f} | {each.files} "
        f"| {each.seconds:.1f} |"
        for each in results
    ]
    return "\n".join([*head, *lines])


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.layout", description=__doc__)
    parser.add_argument("--days", type=int, default=365, help="how many days of minutes (default 365)")
    given = parser.parse_args()
    print(table(list(measure(given.days)), given.days))
    print(f"\n{upkeep_table([upkeep(granularity) for granularity in _GRANULARITIES])}")


if __name__ == "__main__":
    main()
