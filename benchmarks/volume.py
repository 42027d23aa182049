"""The volume benchmark: ten assets of 1m bars through `sample` and through `files`; is speed steady, memory bounded?"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv

from benchmarks.audit import landed
from benchmarks.history import END, minutes
from benchmarks.measure import PYTHON, BenchmarkError, Run, run, say

ASSETS = ("BTCUSD", "ETHUSD", "SOLUSD", "ADAUSD", "XRPUSD", "ETHBTC", "LTCBTC", "DOGEUSD", "AVAXUSD", "LINKUSD")
_MINUTES_A_DAY = 1_440


@dataclass(frozen=True, slots=True)
class Volume:
    """One way of loading: rows, seconds without session start, and bars/s in the first and the last fifth."""

    name: str
    rows: int
    seconds: float
    first: float
    last: float
    run: Run


def measure(days: int) -> list[Volume]:
    """Load the same number of bars both ways, each in a fresh process and lake.

    Raises:
        BenchmarkError: one failed or landed another number of bars.
    """
    return [_sample(days), _files(days)]


def _sample(days: int) -> Volume:
    with tempfile.TemporaryDirectory(prefix="bench-") as lake:
        span = ["--start", f"{END - timedelta(days=days):%F}", "--end", f"{END:%F}", "--provider", "sample"]
        told = ["--lake", lake, "--assets", ",".join(ASSETS), "--timeframes", "1m", *span]
        done = run([PYTHON, "-m", "benchmarks.ingest", *told], {"LAKEHOUSE__DLQ__PATH": f"{lake}/dlq"})
        return _checked("sample", Path(lake), days, done)


def _files(days: int) -> Volume:
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        lake, files = Path(folder) / "lake", Path(folder) / "csv"
        files.mkdir()
        for place, asset in enumerate(ASSETS):
            _write_csv(files / f"{place}.csv", asset, days)
        told = ["--lake", str(lake), "--folder", str(files), "--assets", ",".join(ASSETS)]
        done = run([PYTHON, "-m", "benchmarks.load", *told], {"LAKEHOUSE__DLQ__PATH": f"{folder}/dlq"})
        return _checked("files (CSV)", lake, days, done)


def _write_csv(path: Path, asset: str, days: int) -> None:
    product = "BTC-USD" if len(asset) % 2 else "ETH-USD"
    candles = minutes(product, days)
    times = pa.array(candles.time * 1_000_000, pa.timestamp("us", "UTC"))
    columns = {name: getattr(candles, name) for name in ("open", "high", "low", "close", "volume")}
    pa_csv.write_csv(pa.table({"timestamp": times, **columns}), path)


def _checked(name: str, lake: Path, days: int, done: Run) -> Volume:
    found, wanted = landed(lake), len(ASSETS) * days * _MINUTES_A_DAY
    if (found.rows, found.bars) != (wanted, wanted):
        raise BenchmarkError(f"{name} landed {found}, not {wanted} bars")
    commits = [(float(at), int(rows)) for at, rows in done.answer["commits"]]
    fifth = max(1, len(commits) // 5)
    seconds = float(done.answer["seconds"])
    first = sum(rows for _, rows in commits[:fifth]) / commits[fifth - 1][0]
    before = commits[-fifth - 1][0] if len(commits) > fifth else 0.0
    last = sum(rows for _, rows in commits[-fifth:]) / (commits[-1][0] - before)
    say(f"  {name}: {wanted:,} bars in {seconds:.1f} s, {first:,.0f} bars/s first, {last:,.0f} bars/s last")
    return Volume(name, wanted, seconds, first, last, done)
