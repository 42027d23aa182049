"""The benchmark of monitoring: how long the exporter looks and answers, and what metrics cost a backfill."""

from __future__ import annotations

import shutil
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.backfill import ASSETS, EMBEDDED, ours
from benchmarks.history import END, SECONDS, start_of
from benchmarks.longlog import COMMITS, commits
from benchmarks.measure import PYTHON, BenchmarkError, candle_server, run, say

TABLES = 20
_REPEATS = 5
_GATEWAY_SECONDS = 20


@dataclass(frozen=True, slots=True)
class Looked:
    """Seconds of looks and of the slowest of twenty scrapes, samples of a scrape, and the process's peak bytes."""

    first: float
    same: float
    one: float
    scrape: float
    samples: int
    resident: int


@dataclass(frozen=True, slots=True)
class Backfilled:
    """Medians: rows, seconds of a backfill with its push, calls of metrics, seconds in them, seconds of the push."""

    rows: float
    seconds: float
    calls: float
    metrics: float
    push: float


def measure(days: int) -> tuple[Looked, Backfilled]:
    """Measure both.

    Raises:
        BenchmarkError: something failed, or there is no Pushgateway.
    """
    return _looks(), _backfills(days)


def _looks() -> Looked:
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        lake = Path(folder)
        _tables(lake)
        done = run([PYTHON, "-m", "benchmarks.monitored", "--lake", lake])
    found = Looked(**done.answer, resident=done.usage.python_peak)
    say(f"  {TABLES} tables of {COMMITS:,} commits: first look {found.first:.1f} s, scrape {found.scrape:.3f} s")
    return found


def _tables(lake: Path) -> None:
    """Make tables of so many commits: one is committed to so often, the others are copies of it."""
    commits(lake)
    whole = lake / "raw_market_data_1m"
    bronze = [lake / f"raw_market_data_{name}" for name in SECONDS if name != "1m"]
    made = [lake / "silver" / f"made_{number}" for number in range(TABLES - 1 - len(bronze))]
    for target in (*bronze, *made):
        shutil.copytree(whole, target)


def _backfills(days: int) -> Backfilled:
    found = []
    with candle_server(days) as url, _gateway() as gateway, tempfile.TemporaryDirectory(prefix="bench-") as folder:
        for number in range(_REPEATS):
            lake = Path(folder) / str(number)
            env = ours(url, lake) | EMBEDDED | {"LAKEHOUSE__MONITORING__PUSHGATEWAY": gateway}
            found.append(run(_command(lake, days), env).answer)
            shutil.rmtree(lake)
    names = ("rows", "seconds", "calls", "metrics", "push")
    result = Backfilled(*(statistics.median(float(each[name]) for each in found) for name in names))
    say(f"  backfill {result.seconds:.2f} s, of that metrics {result.metrics:.4f} s, push {result.push:.3f} s")
    return result


def _command(lake: Path, days: int) -> list[str | Path]:
    span = ["--assets", ASSETS, "--provider", "coinbase", "--start", f"{start_of(days):%F}", "--end", f"{END:%F}"]
    return [PYTHON, "-m", "benchmarks.monitored", "--lake", lake, "--timeframes", ",".join(SECONDS), *span]


@contextmanager
def _gateway() -> Iterator[str]:
    """Run a Pushgateway and yield its address."""
    program = shutil.which("prometheus-pushgateway")
    if program is None:
        raise BenchmarkError("no prometheus-pushgateway: install Debian's package of that name")
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    options = [f"--web.listen-address={address}", "--persistence.file="]
    with subprocess.Popen([program, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + _GATEWAY_SECONDS
            while not _listens(address):
                if time.monotonic() > deadline:
                    raise BenchmarkError("the Pushgateway did not start")
                time.sleep(0.05)
            yield address
        finally:
            process.kill()


def _listens(address: str) -> bool:
    host, _, port = address.partition(":")
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
    except OSError:
        return False
    return True
