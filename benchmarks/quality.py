"""The quality benchmarks: what validation costs an ingestion, and a suite over 2M rows beside one hand-written pass."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from benchmarks.bars import A_DAY, bars
from benchmarks.contestant import complete
from benchmarks.measure import PYTHON, BenchmarkError, Run, run, say

BASE = "hand-written, Spark"
_TASKS = {"aggregate": BASE, "spark": "suite, Spark", "arrow": "suite, Arrow"}


@dataclass(frozen=True, slots=True)
class Check:
    """One contestant: what it did over how many rows, in seconds, and what it is compared with."""

    task: str
    who: str
    rows: int
    seconds: float
    base: float
    run: Run


def measure(days: int) -> list[Check]:
    """Measure the edge within an ingestion, then suites over so many days of ten assets.

    Raises:
        BenchmarkError: a contestant failed, or found something wrong with sound rows.
    """
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        return [*_edge(Path(scratch), days), *_suites(Path(scratch), days)]


def _edge(scratch: Path, days: int) -> list[Check]:
    rows = days * A_DAY // 2
    done = _run("edge", scratch, rows)
    whole, edge = (float(done.answer[name]) for name in ("ingestion", "edge"))
    say(f"  edge: {edge:.2f} of {whole:.2f} s")
    return [
        Check("100k rows", "ingestion, embedded", rows, whole, whole, done),
        Check("100k rows", "edge validation", rows, edge, whole, done),
    ]


def _suites(scratch: Path, days: int) -> list[Check]:
    table = scratch / "bars.parquet"
    rows = complete(bars(days)).drop(["partition_date", "partition_asset_pair"])
    pq.write_table(rows, table, row_group_size=200_000)
    found: list[Check] = []
    for task, who in _TASKS.items():
        done = _run(task, table, rows.num_rows)
        seconds = float(done.answer["seconds"])
        found.append(Check("suite", who, rows.num_rows, seconds, found[0].seconds if found else seconds, done))
        say(f"  {who}: {seconds:.1f} s, {done.usage.cpu_seconds:.0f} s of CPU in all")
    return found


def _run(task: str, path: Path, rows: int) -> Run:
    done = run([PYTHON, "-m", "benchmarks.validation", task, "--path", path, "--rows", str(rows)])
    if done.answer["rows"] != rows or done.answer["failed"]:
        raise BenchmarkError(f"{task}: {done.answer}, not {rows:,} sound rows")
    return done
