"""The write benchmarks: 2M bars into 1,390 partitions, 100k rows merged into them, 11,120 files compacted."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
from deltalake import DeltaTable, Schema, write_deltalake

from benchmarks.bars import ASSETS, bars
from benchmarks.contestant import PARTITIONS, QUOTES, TABLE, complete, partitioned
from benchmarks.measure import PYTHON, BenchmarkError, Run, run, say

WHO = ("stock", "spark", "spark, C2", "delta-rs", "embedded")
# The default settings stop the JVM at its quick compiler, which pays for loads of minutes; this one has both.
_BOTH_COMPILERS = {"LAKEHOUSE__SPARK__JAVA_OPTIONS": ""}
_SCATTER = 8


@dataclass(frozen=True, slots=True)
class Task:
    """One task by one contestant: seconds of the first time in a process and of the second (None if done once)."""

    task: str
    who: str
    first: float
    second: float | None
    files: int
    run: Run


def measure(days: int) -> list[Task]:
    """Run every task by every contestant, each in a fresh process, and compare the rows left.

    Raises:
        BenchmarkError: one failed, or its table holds other rows than that of the others.
    """
    return [
        *_writes(days),
        *_on_copies("merge", QUOTES, days, _quotes),
        *_on_copies("compact", TABLE, days, _scattered),
    ]


def _writes(days: int) -> list[Task]:
    found = []
    for who in WHO:
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            (Path(folder) / "second").mkdir()
            task = _run("write", who, Path(folder), days, TABLE)
            _check(f"write by {who}", _counted(Path(folder) / TABLE)[0], days * 1440 * len(ASSETS))
            found.append(task)
    return found


def _on_copies(name: str, table: str, days: int, make: Callable[[Path, int], None]) -> list[Task]:
    """Let every contestant change a copy of the same table; all have to leave the same rows."""
    found, left = [], set()
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        original = Path(scratch) / "original"
        make(original / table, days)
        for number, who in enumerate(who for who in WHO if name != "compact" or "C2" not in who):
            lake = Path(scratch) / str(number)
            for copy in (lake, lake / "second"):
                shutil.copytree(original / table, copy / table)
            found.append(_run(name, who, lake, days, table))
            left.add(_counted(lake / table))
            shutil.rmtree(lake)
    _check(name, len(left), 1)
    return found


def _run(name: str, who: str, lake: Path, days: int, table: str) -> Task:
    told = ["-m", "benchmarks.contestant", name, who.split(",", maxsplit=1)[0], "--lake", lake, "--days", str(days)]
    done = run([PYTHON, *told], _BOTH_COMPILERS if "C2" in who else {})
    seconds = [float(each) for each in done.answer["seconds"]]
    files = len(DeltaTable(str(lake / table)).file_uris())
    say(f"  {name}, {who}: {', '.join(f'{each:.1f}' for each in seconds)} s, {files:,} files")
    return Task(name, who, seconds[0], seconds[1] if len(seconds) > 1 else None, files, done)


def _quotes(table: Path, days: int) -> None:
    """Make a table that is not append-only."""
    rows = partitioned(bars(days))
    DeltaTable.create(
        str(table),
        Schema.from_arrow(rows.schema),
        partition_by=PARTITIONS,
        configuration={"lakehouse.partition_granularity": "day"},
        raise_if_key_not_exists=False,
    )
    write_deltalake(str(table), rows, mode="append")


def _scattered(table: Path, days: int) -> None:
    """Make a table whose every partition holds its rows in eight files."""
    rows = complete(bars(days))
    turn = np.arange(rows.num_rows) % _SCATTER
    for each in range(_SCATTER):
        part = rows.take(pa.array(np.flatnonzero(turn == each)))
        write_deltalake(str(table), part, mode="append", partition_by=PARTITIONS)


def _counted(table: Path) -> tuple[int, int]:
    """Return rows and a checksum that knows no order."""
    files = DeltaTable(str(table)).file_uris()
    rows, checksum = duckdb.execute(
        """SELECT count(*), sum(hash(asset_pair, timestamp, open, high, low, close, volume)::HUGEINT)
           FROM read_parquet($1, hive_partitioning = false)""",
        [files],
    ).fetchall()[0]
    return int(rows), int(checksum)


def _check(what: str, found: int, wanted: int) -> None:
    if found != wanted:
        raise BenchmarkError(f"{what}: {found:,} instead of {wanted:,}")
