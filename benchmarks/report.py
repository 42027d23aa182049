"""Turns measurements into the tables of docs/benchmarks.md."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime

import psutil

from benchmarks.backfill import Result
from benchmarks.gaps import Found
from benchmarks.longlog import COMMITS
from benchmarks.measure import ROOT, BenchmarkError
from benchmarks.monitoring import TABLES, Backfilled, Looked
from benchmarks.orchestrating import Step
from benchmarks.pruning import LAYOUTS, Query
from benchmarks.quality import Check
from benchmarks.startup import Startup
from benchmarks.streaming import Drained, Live
from benchmarks.tables import Task
from benchmarks.transforms import Transformed
from benchmarks.volume import ASSETS, Volume

PAGE = ROOT / "docs" / "benchmarks.md"
_MIB = 2**20
_BASES = {"spark": "stock", "spark, C2": "stock", "embedded": "delta-rs"}


def backfill_table(results: Sequence[Result], days: int) -> str:
    """Return the backfill table, with ratios to each reference of the same run."""
    rates = {result.name: result.rate for result in results}
    head = ["contestant", "bars", "files", "seconds", "bars/s", "x dlt", "x script", "Python MiB", "JVM MiB", "whole s"]
    rows = [
        [
            result.name,
            f"{result.rows:,}",
            f"{result.files:,}",
            f"{result.seconds:.1f}",
            f"{result.rate:,.0f}",
            _ratio(result.rate, rates.get("dlt")),
            _ratio(result.rate, rates.get("script")),
            _mib(result.run.usage.python_peak),
            _mib(result.run.usage.jvm_peak),
            f"{result.run.wall_seconds:.1f}",
        ]
        for result in results
    ]
    return f"{_machine()} 2 assets x 6 timeframes x {days} days.\n\n{_table(head, rows)}"


def volume_table(results: Sequence[Volume], days: int) -> str:
    """Return the volume table."""
    head = ["through", "bars", "seconds", "bars/s", "first tenth", "last tenth", "last/first", "Python MiB", "JVM MiB"]
    rows = [
        [
            result.name,
            f"{result.rows:,}",
            f"{result.seconds:.1f}",
            f"{result.rows / result.seconds:,.0f}",
            f"{result.first:,.0f}",
            f"{result.last:,.0f}",
            f"{result.last / result.first:.2f}",
            _mib(result.run.usage.python_peak),
            _mib(result.run.usage.jvm_peak),
        ]
        for result in results
    ]
    return f"{_machine()} {len(ASSETS)} assets x {days} days of 1m bars.\n\n{_table(head, rows)}"


def startup_table(results: Sequence[Startup]) -> str:
    """Return the start-up table."""
    bare = results[0].seconds
    rows = [[result.name, f"{result.seconds:.2f}", f"{result.seconds / bare:.0f}"] for result in results]
    return (
        f"{_machine()} Median of five; none of them starts a JVM.\n\n{_table(['command', 'seconds', 'x bare'], rows)}"
    )


def tables_table(results: Sequence[Task]) -> str:
    """Return the table of writes, merges and compactions, with the ratio of each engine to what it builds upon."""
    bases = {(each.task, each.who): each for each in results}
    head = ["task", "by", "first s", "second s", "first, ratio", "second, ratio", "files", "Python MiB", "JVM MiB"]
    rows = []
    for each in results:
        base = bases[each.task, _BASES.get(each.who, each.who)]
        rows.append(
            [
                each.task,
                each.who,
                f"{each.first:.2f}",
                "" if each.second is None else f"{each.second:.2f}",
                f"{each.first / base.first:.2f}",
                "" if each.second is None or base.second is None else f"{each.second / base.second:.2f}",
                f"{each.files:,}",
                _mib(each.run.usage.python_peak),
                _mib(each.run.usage.jvm_peak),
            ]
        )
    return f"{_machine()}\n\n{_table(head, rows)}"


def pruning_table(results: Sequence[Query], days: int) -> str:
    """Return the table of queries, with the speed-up over the full scan by the same reader."""
    scans = {each.reader: each.seconds for each in results if each.layout == LAYOUTS[0]}
    head = ["layout", "reader", "ms", "x full scan", "files", "files read", "skipped", "MiB read"]
    rows = [
        [
            each.layout,
            each.reader,
            f"{each.seconds * 1000:,.0f}",
            f"{scans[each.reader] / each.seconds:.1f}",
            f"{each.files:,}",
            f"{each.read_files:,}",
            f"{1 - each.read_files / each.files:.1%}",
            f"{each.read_bytes / _MIB:.1f}",
        ]
        for each in results
    ]
    return f"{_machine()} 10 assets x {days} days of 1m bars; 1 asset, 7 days.\n\n{_table(head, rows)}"


def quality_table(results: Sequence[Check]) -> str:
    """Return the table of validation, with ratios to the ingestion or the hand-written pass of the same run."""
    return _compared(results, "rows", 2)


def transform_table(results: Sequence[Transformed]) -> str:
    """Return the table of transforms, with ratios to the hand-written job or to the short history."""
    return _compared(results, "bars", 1)


def orchestration_table(steps: Sequence[Step], days: int) -> str:
    """Return the table of the daily run: seconds of each task, and the share of them that is start."""
    head = ["task", "seconds", "of them process start", "of them Spark's start", "share of start"]
    rows = [
        [
            each.name,
            f"{each.seconds:.1f}",
            f"{each.start:.1f}",
            f"{each.jvm:.1f}" if each.jvm else "",
            f"{(each.start + each.jvm) / each.seconds:.0%}",
        ]
        for each in steps
    ]
    return f"{_machine()} {len(ASSETS)} assets, one day after {days}.\n\n{_table(head, rows)}"


def stream_table(drained: Sequence[Drained], live: Live) -> str:
    """Return the tables of a drained backlog, with ratios to bare Structured Streaming, and of live ticks."""
    base = drained[0]
    head = ["by", "messages", "seconds", "messages/s", "ratio", "without the first batch", "ratio", "files"]
    rows = [
        [
            each.who,
            f"{each.messages:,}",
            f"{each.seconds:.1f}",
            f"{each.rate:,.0f}",
            _ratio(each.rate, base.rate),
            f"{each.later_rate:,.0f}",
            _ratio(each.later_rate, base.later_rate),
            f"{each.files:,}",
            _mib(each.run.usage.python_peak),
            _mib(each.run.usage.jvm_peak),
        ]
        for each in drained
    ]
    backlog = _table([*head, "Python MiB", "JVM MiB"], rows)
    return f"{_machine()}\n\n{backlog}\n\n{_live_table(live)}"


def monitoring_table(looked: Looked, backfilled: Backfilled, days: int) -> str:
    """Return the tables of an exporter's looks, and of what metrics take of a backfill."""
    head = ["tables x commits", "first look s", "nothing new s", "one commit s", "scrape s", "samples", "Python MiB"]
    times = [f"{seconds:.3f}" for seconds in (looked.first, looked.same, looked.one, looked.scrape)]
    looks = _table(head, [[f"{TABLES} x {COMMITS:,}", *times, f"{looked.samples:,}", _mib(looked.resident)]])
    share = (backfilled.metrics + backfilled.push) / backfilled.seconds
    row = [
        f"{backfilled.rows:,.0f}",
        f"{backfilled.seconds:.2f}",
        f"{backfilled.calls:,.0f}",
        f"{backfilled.metrics:.4f}",
        f"{backfilled.push:.3f}",
        f"{share:.2%}",
    ]
    costs = _table([f"bars of {days} days", "seconds", "calls of metrics", "in them s", "push s", "share"], [row])
    return f"{_machine()}\n\n{looks}\n\n{costs}"


def _live_table(live: Live) -> str:
    head = ["live", "messages", "p50 s", "p95 s", "p99 s", "slowest s", "batch s", "Python MiB", "JVM MiB"]
    rows = [
        [
            span.name,
            f"{span.messages:,}",
            *(f"{seconds:.1f}" for seconds in span.latencies),
            f"{span.batch_seconds:.2f}",
            _mib(span.python),
            _mib(span.jvm),
        ]
        for span in live.spans
    ]
    files = (
        f"A partition of the live ticks had up to {live.most_files} files, and {live.files_left} once compacted: in "
        f"{live.seconds:.0f} s, which makes {live.files_an_hour:.0f} an hour."
    )
    return f"{_table(head, rows)}\n\n{files}"


def _compared(results: Sequence[Check] | Sequence[Transformed], counted: str, digits: int) -> str:
    head = ["task", "by", counted, "seconds", "ratio", "CPU s of the process", "Python MiB", "JVM MiB"]
    rows = [
        [
            each.task,
            each.who,
            f"{each.rows:,}",
            f"{each.seconds:.{digits}f}",
            f"{each.seconds / each.base:.2f}",
            f"{each.run.usage.cpu_seconds:.0f}",
            _mib(each.run.usage.python_peak),
            _mib(each.run.usage.jvm_peak),
        ]
        for each in results
    ]
    return f"{_machine()}\n\n{_table(head, rows)}"


def gaps_table(results: Sequence[Found], days: int) -> str:
    """Return the table of searches for missing bars, with the time of each over that of the anti-join."""
    base = results[0].seconds
    head = ["by", "bars expected", "missing", "first s", "seconds", "ratio", "bars/s", "Python MiB"]
    rows = [
        [
            each.name,
            f"{each.expected:,}",
            f"{each.missing:,}",
            f"{each.first:.2f}",
            f"{each.seconds:.2f}",
            f"{each.seconds / base:.2f}",
            f"{each.expected / each.seconds:,.0f}",
            _mib(each.run.usage.python_peak),
        ]
        for each in results
    ]
    return f"{_machine()} 10 assets x {days} days of 1m bars, one in 500 missing.\n\n{_table(head, rows)}"


def write(name: str, table: str) -> None:
    """Put a table between its markers in docs/benchmarks.md.

    Raises:
        BenchmarkError: the page has no such markers.
    """
    text = PAGE.read_text(encoding="utf-8")
    pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
    changed, count = pattern.subn(lambda found: f"{found[1]}{table}\n{found[2]}", text)
    if count != 1:
        raise BenchmarkError(f"{PAGE} has no markers for {name}")
    PAGE.write_text(changed, encoding="utf-8")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    rule = ["---"] + ["---:"] * (len(head) - 1)
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, rule, *rows))


def _ratio(rate: float, reference: float | None) -> str:
    return f"{rate / reference:.2f}" if reference else ""


def _mib(size: int) -> str:
    return f"{size / _MIB:,.0f}" if size else ""


def _machine() -> str:
    java = subprocess.run(["java", "-version"], capture_output=True, text=True, check=True)  # noqa: S607
    version = re.search(r'"([^"]+)"', java.stderr)
    memory = psutil.virtual_memory().total / 2**30
    return (
        f"Measured {datetime.now(UTC):%Y-%m-%d} on {os.cpu_count()} cores, {memory:.0f} GiB, "
        f"Python {platform.python_version()}, Java {version[1] if version else '?'}."
    )
